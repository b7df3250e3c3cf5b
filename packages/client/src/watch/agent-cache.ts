import { CallError, callErrorOf } from "../connection/call-error.ts";
import { CALL_TIMEOUT_MS } from "../connection/call-timeout.ts";
import { Listeners, warnOf } from "../event-listeners.ts";
import type { AgentView, ChangeView } from "../views.ts";
import type { WatchEvent } from "./watch-agents.ts";

/** The agents that pass a filter. */
export interface AgentCacheView<Agent = AgentView> {
  /** The agent with this id; undefined while it does not pass the filter. */
  get(agentId: string): Agent | undefined;
  /** All agents, or those that pass a test, in no particular order. */
  list(test?: (agent: Agent) => boolean): Agent[];
}

/** The current state of all agents that pass a filter, updated by a watch. */
export interface AgentCache<Agent = AgentView, Change = ChangeView> extends AgentCacheView<Agent>, AsyncDisposable {
  /**
   * Resolves with the first snapshot. Rejects with a CallError if the service rejects the watch, or is not reached within
   * `timeoutMs`. The cache goes on trying in the second case.
   */
  readonly ready: Promise<void>;
  /** The revision of the state; undefined before the first snapshot. */
  readonly revision: bigint | undefined;
  /** Whether the watch runs. While it is interrupted, the state is that of the moment before. */
  readonly isCurrent: boolean;
  /**
   * Waits until a condition holds.
   *
   * @param predicate called now, with the first snapshot, and after every change
   * @param options `signal` ends the wait with its reason
   * @returns the first result of the predicate that is not false, null or undefined
   * @throws CallError if the service rejects the watch, or is not reached within `timeoutMs` for the first snapshot; an AbortError if
   * the cache is closed
   */
  waitFor<Found>(
    predicate: (agents: AgentCacheView<Agent>) => Found,
    options?: { readonly signal?: AbortSignal },
  ): Promise<Exclude<Found, false | null | undefined>>;
  /** @param listener called with each event of the watch, after the state changed. @returns a function that removes it */
  subscribe(listener: (event: WatchEvent<Agent, Change>) => void): () => void;
  /** Ends the watch. The last state stays readable. */
  close(): Promise<void>;
}

interface CachedAgent {
  readonly id: bigint;
  readonly agentId: string;
}

interface CachedChange<Agent> {
  readonly passes: boolean;
  readonly agent: Agent;
}

/**
 * Creates a cache that a watch updates.
 *
 * @param watch starts the watch, which ends with the signal
 * @param timeoutMs how long the first snapshot may take while the watch is interrupted, in milliseconds. 0: no limit
 */
export function cacheOf<Agent extends CachedAgent, Change extends CachedChange<Agent>>(
  watch: (signal: AbortSignal) => AsyncIterable<WatchEvent<Agent, Change>>,
  timeoutMs: number = CALL_TIMEOUT_MS,
): AgentCache<Agent, Change> {
  return new WatchedAgents(watch, timeoutMs);
}

class WatchedAgents<Agent extends CachedAgent, Change extends CachedChange<Agent>>
  implements AgentCache<Agent, Change>
{
  readonly ready: Promise<void>;
  readonly #agents = new Map<string, Agent>();
  /** The argument of predicates, which may destructure it. */
  readonly #view: AgentCacheView<Agent> = { get: (agentId) => this.get(agentId), list: (test) => this.list(test) };
  readonly #listeners = new Listeners<WatchEvent<Agent, Change>>(warnOf);
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #timeoutMs: number;
  /** Resolves `ready`. */
  readonly #onSnapshot: () => void;
  /** Rejects what waits for the cache. */
  readonly #waits = new Set<(error: unknown) => void>();
  /** Of these, what waits for the first snapshot for too long, while the watch may be reading a large one. */
  readonly #overdue = new Set<() => void>();
  /** Why the watch has ended. */
  #end: { readonly error: unknown } | undefined;
  /** The last interruption of the watch, and when the watch tries again, by the monotonic clock. */
  #interruption: { readonly error: CallError | undefined; readonly until: number } | undefined;
  #revision: bigint | undefined;
  #isCurrent = false;

  constructor(watch: (signal: AbortSignal) => AsyncIterable<WatchEvent<Agent, Change>>, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    const events = watch(this.#stop.signal);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.ready = promise;
    // Keeps a rejection without a handler from ending the process.
    promise.catch(() => undefined);
    const release = this.#wait((error) => {
      release();
      reject(error);
    });
    this.#onSnapshot = () => {
      release();
      resolve();
    };
    this.#done = this.#follow(events);
  }

  get revision(): bigint | undefined {
    return this.#revision;
  }

  get isCurrent(): boolean {
    return this.#isCurrent;
  }

  get(agentId: string): Agent | undefined {
    return this.#agents.get(agentId);
  }

  list(test: (agent: Agent) => boolean = () => true): Agent[] {
    return [...this.#agents.values()].filter(test);
  }

  async waitFor<Found>(
    predicate: (agents: AgentCacheView<Agent>) => Found,
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<Exclude<Found, false | null | undefined>> {
    signal?.throwIfAborted();
    if (this.#end !== undefined) throw this.#end.error;
    const found = Promise.withResolvers<Exclude<Found, false | null | undefined>>();
    const look = (): void => {
      if (this.#revision === undefined) return;
      try {
        const value = predicate(this.#view);
        if (isThere(value)) found.resolve(value);
      } catch (error) {
        found.reject(error);
      }
    };
    const abort = (): void => found.reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const unsubscribe = this.subscribe(look);
    const release = this.#wait(found.reject);
    look();
    try {
      return await found.promise;
    } finally {
      release();
      unsubscribe();
      signal?.removeEventListener("abort", abort);
    }
  }

  subscribe(listener: (event: WatchEvent<Agent, Change>) => void): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#fail(new DOMException("the cache was closed", "AbortError"));
    this.#stop.abort();
    await this.#done;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Rejects when the watch ends, or when the first snapshot is late.
   *
   * @returns a function that ends the wait
   */
  #wait(reject: (error: unknown) => void): () => void {
    const late = (): void => reject(this.#notReached());
    const onTime = (): void => {
      if (this.#revision !== undefined) return;
      // Otherwise the watch tries at present, and reports its next failure.
      if (this.#interruption !== undefined && performance.now() < this.#interruption.until) late();
      else this.#overdue.add(late);
    };
    const isBounded = this.#revision === undefined && this.#timeoutMs > 0;
    const timer = isBounded ? setTimeout(onTime, this.#timeoutMs) : undefined;
    this.#waits.add(reject);
    return () => {
      clearTimeout(timer);
      this.#overdue.delete(late);
      this.#waits.delete(reject);
    };
  }

  #fail(error: unknown): void {
    this.#end ??= { error };
    for (const reject of [...this.#waits]) reject(error);
  }

  #notReached(): CallError {
    const error = this.#interruption?.error;
    const why = error === undefined ? "" : `: ${error.message}`;
    const { code = "UNAVAILABLE", reason, metadata = {}, retryAfterMs } = error ?? {};
    const details = { code, reason, metadata, retryAfterMs, cause: error };
    return new CallError(`no snapshot within ${this.#timeoutMs} ms${why}. The cache goes on trying.`, details);
  }

  async #follow(events: AsyncIterable<WatchEvent<Agent, Change>>): Promise<void> {
    try {
      for await (const event of events) {
        this.#apply(event);
        this.#listeners.emit(event);
      }
    } catch (thrown) {
      this.#fail(callErrorOf(thrown));
    } finally {
      this.#isCurrent = false;
    }
  }

  #apply(event: WatchEvent<Agent, Change>): void {
    this.#isCurrent = event.kind !== "interrupted";
    switch (event.kind) {
      case "snapshot":
        this.#agents.clear();
        for (const agent of event.agents) this.#agents.set(agent.agentId, agent);
        break;
      case "changes":
        for (const { passes, agent } of event.changes) {
          if (passes) this.#agents.set(agent.agentId, agent);
          // An agent that was deleted and created again has the same agent_id, and is another one.
          else if (this.#agents.get(agent.agentId)?.id === agent.id) this.#agents.delete(agent.agentId);
        }
        break;
      case "interrupted":
        this.#interruption = { error: event.error, until: performance.now() + event.retryInMs };
        for (const end of [...this.#overdue]) end();
        return;
    }
    this.#revision = event.revision;
    this.#overdue.clear();
    this.#onSnapshot();
  }
}

function isThere<T>(value: T): value is Exclude<T, false | null | undefined> {
  return value !== false && value !== null && value !== undefined;
}
