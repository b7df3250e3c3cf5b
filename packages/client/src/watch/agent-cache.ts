import { callErrorOf } from "../connection/call-error.ts";
import { Listeners, warnOf } from "../event-listeners.ts";
import type { AgentView } from "../views.ts";
import type { WatchEvent } from "./watch-agents.ts";

/** The agents that pass a filter. */
export interface AgentCacheView {
  /** The agent with this id; undefined while it does not pass the filter. */
  get(agentId: string): AgentView | undefined;
  /** All agents, or those that pass a test, in no particular order. */
  list(test?: (agent: AgentView) => boolean): AgentView[];
}

/** The current state of all agents that pass a filter, updated by a watch. */
export interface AgentCache extends AgentCacheView, AsyncDisposable {
  /** Resolves with the first snapshot. Rejects with a CallError if the service rejects the watch. */
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
   * @throws CallError if the service rejects the watch; an AbortError if the cache is closed
   */
  waitFor<Found>(
    predicate: (agents: AgentCacheView) => Found,
    options?: { readonly signal?: AbortSignal },
  ): Promise<Exclude<Found, false | null | undefined>>;
  /** @param listener called with each event of the watch, after the state changed. @returns a function that removes it */
  subscribe(listener: (event: WatchEvent) => void): () => void;
  /** Ends the watch. The last state stays readable. */
  close(): Promise<void>;
}

/**
 * Creates a cache that a watch updates.
 *
 * @param watch starts the watch, which ends with the signal
 */
export function cacheOf(watch: (signal: AbortSignal) => AsyncIterable<WatchEvent>): AgentCache {
  return new WatchedAgents(watch);
}

class WatchedAgents implements AgentCache {
  readonly ready: Promise<void>;
  readonly #agents = new Map<string, AgentView>();
  /** The argument of predicates, which may destructure it. */
  readonly #view: AgentCacheView = { get: (agentId) => this.get(agentId), list: (test) => this.list(test) };
  readonly #listeners = new Listeners<WatchEvent>(warnOf);
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #snapshot = Promise.withResolvers<void>();
  /** Rejects when the watch has ended. */
  readonly #end = Promise.withResolvers<never>();
  #revision: bigint | undefined;
  #isCurrent = false;

  constructor(watch: (signal: AbortSignal) => AsyncIterable<WatchEvent>) {
    this.ready = Promise.race([this.#snapshot.promise, this.#end.promise]);
    // Keeps a rejection without a handler from ending the process.
    for (const promise of [this.ready, this.#end.promise]) promise.catch(() => undefined);
    this.#done = this.#follow(watch(this.#stop.signal));
  }

  get revision(): bigint | undefined {
    return this.#revision;
  }

  get isCurrent(): boolean {
    return this.#isCurrent;
  }

  get(agentId: string): AgentView | undefined {
    return this.#agents.get(agentId);
  }

  list(test: (agent: AgentView) => boolean = () => true): AgentView[] {
    return [...this.#agents.values()].filter(test);
  }

  async waitFor<Found>(
    predicate: (agents: AgentCacheView) => Found,
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<Exclude<Found, false | null | undefined>> {
    signal?.throwIfAborted();
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
    look();
    try {
      return await Promise.race([found.promise, this.#end.promise]);
    } finally {
      unsubscribe();
      signal?.removeEventListener("abort", abort);
    }
  }

  subscribe(listener: (event: WatchEvent) => void): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#end.reject(new DOMException("the cache was closed", "AbortError"));
    this.#stop.abort();
    await this.#done;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #follow(events: AsyncIterable<WatchEvent>): Promise<void> {
    try {
      for await (const event of events) {
        this.#apply(event);
        this.#listeners.emit(event);
      }
    } catch (thrown) {
      this.#end.reject(callErrorOf(thrown));
    } finally {
      this.#isCurrent = false;
    }
  }

  #apply(event: WatchEvent): void {
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
        return;
    }
    this.#revision = event.revision;
    this.#snapshot.resolve();
  }
}

function isThere<T>(value: T): value is Exclude<T, false | null | undefined> {
  return value !== false && value !== null && value !== undefined;
}
