import { callErrorOf } from "../connection/call-error.ts";
import { Listeners, warnOf } from "../event-listeners.ts";
import type { AgentView } from "../views.ts";
import type { WatchEvent } from "./watch-agents.ts";

/** What is known of the agents that pass a filter. */
export interface AgentCacheView {
  /** The agent with this id; undefined while it does not pass the filter. */
  get(agentId: string): AgentView | undefined;
  /** All agents, or those that pass a test. In no order. */
  list(test?: (agent: AgentView) => boolean): AgentView[];
}

/** The current state of all agents that pass a filter, kept up by a watch. */
export interface AgentCache extends AgentCacheView, AsyncDisposable {
  /** Resolves when the first snapshot is there. Rejects with a CallError when the service refuses the watch. */
  readonly ready: Promise<void>;
  /** The revision that the state equals; undefined before the first snapshot. */
  readonly revision: bigint | undefined;
  /** Whether the watch runs: otherwise the state is that of a moment ago, until it goes on by itself. */
  readonly isCurrent: boolean;
  /**
   * Waits for something to be so.
   *
   * @param predicate asked at once, when the first snapshot is there, and after every change
   * @param options ends the waiting with the signal's reason
   * @returns what the predicate returned when that was not false, null or undefined
   * @throws CallError when the service refuses the watch; an AbortError when the cache was closed
   */
  waitFor<Found>(
    predicate: (agents: AgentCacheView) => Found,
    options?: { readonly signal?: AbortSignal },
  ): Promise<Exclude<Found, false | null | undefined>>;
  /** @param listener told what the watch tells, after the state has taken it in. @returns what ends that */
  subscribe(listener: (event: WatchEvent) => void): () => void;
  /** Ends the watch. What is known stays readable. */
  close(): Promise<void>;
}

/**
 * Keeps a cache up by a watch.
 *
 * @param watch begins the watch, which ends with the signal
 */
export function cacheOf(watch: (signal: AbortSignal) => AsyncIterable<WatchEvent>): AgentCache {
  return new WatchedAgents(watch);
}

class WatchedAgents implements AgentCache {
  readonly ready: Promise<void>;
  readonly #agents = new Map<string, AgentView>();
  /** What predicates get: they may take it apart. */
  readonly #view: AgentCacheView = { get: (agentId) => this.get(agentId), list: (test) => this.list(test) };
  readonly #listeners = new Listeners<WatchEvent>(warnOf);
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #snapshot = Promise.withResolvers<void>();
  /** Why nothing will change any more. */
  readonly #end = Promise.withResolvers<never>();
  #revision: bigint | undefined;
  #isCurrent = false;

  constructor(watch: (signal: AbortSignal) => AsyncIterable<WatchEvent>) {
    this.ready = Promise.race([this.#snapshot.promise, this.#end.promise]);
    // Who does not ask is not to die of it.
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
          // An agent that was created anew under the same id is another.
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
