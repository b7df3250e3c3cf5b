import type { AgentStatus } from "../contract/words.ts";
import type { Transition } from "../domain/agent.ts";
import type { Watcher } from "./watcher.ts";

/**
 * The watchers by what they ask for, so that a transition costs what its receivers cost and not what the watchers number.
 * Each is found by one field of its filter, the one that lets the fewest pass; the others are the watcher's own business.
 */
export class WatcherIndex {
  readonly #byAgent = new Map<string, Set<Watcher>>();
  readonly #byUser = new Map<bigint, Set<Watcher>>();
  readonly #byClaw = new Map<string, Set<Watcher>>();
  readonly #byStatus = new Map<AgentStatus, Set<Watcher>>();
  readonly #ofEverything = new Set<Watcher>();

  add(watcher: Watcher): void {
    const { agentIds, userIds, clawIdentifiers, statuses } = watcher.query.filter;
    if (agentIds.length > 0) enter(this.#byAgent, agentIds, watcher);
    else if (userIds.length > 0) enter(this.#byUser, userIds, watcher);
    else if (clawIdentifiers.length > 0) enter(this.#byClaw, clawIdentifiers, watcher);
    else if (statuses.length > 0) enter(this.#byStatus, statuses, watcher);
    else this.#ofEverything.add(watcher);
  }

  /** Does nothing when the watcher is not there. */
  delete(watcher: Watcher): void {
    const { agentIds, userIds, clawIdentifiers, statuses } = watcher.query.filter;
    if (agentIds.length > 0) remove(this.#byAgent, agentIds, watcher);
    else if (userIds.length > 0) remove(this.#byUser, userIds, watcher);
    else if (clawIdentifiers.length > 0) remove(this.#byClaw, clawIdentifiers, watcher);
    else if (statuses.length > 0) remove(this.#byStatus, statuses, watcher);
    else this.#ofEverything.delete(watcher);
  }

  clear(): void {
    for (const map of [this.#byAgent, this.#byUser, this.#byClaw, this.#byStatus]) map.clear();
    this.#ofEverything.clear();
  }

  /**
   * Calls `tell` once with each watcher that a transition may concern: by what the agent was before it as well as by what
   * it is after it, since a watcher is also told what leaves its filter.
   */
  forEach({ agentId, userId, fromClaw, toClaw, fromStatus, toStatus }: Transition, tell: (one: Watcher) => void): void {
    this.#byAgent.get(agentId)?.forEach(tell);
    this.#byUser.get(userId)?.forEach(tell);
    eachOfBoth(this.#byClaw, fromClaw, toClaw, tell);
    eachOfBoth(this.#byStatus, fromStatus, toStatus, tell);
    this.#ofEverything.forEach(tell);
  }
}

function enter<Key>(index: Map<Key, Set<Watcher>>, keys: readonly Key[], watcher: Watcher): void {
  for (const key of keys) {
    const watchers = index.get(key);
    if (watchers === undefined) index.set(key, new Set([watcher]));
    else watchers.add(watcher);
  }
}

function remove<Key>(index: Map<Key, Set<Watcher>>, keys: readonly Key[], watcher: Watcher): void {
  for (const key of keys) {
    const watchers = index.get(key);
    if (watchers?.delete(watcher) && watchers.size === 0) index.delete(key);
  }
}

function eachOfBoth<Key>(
  index: Map<Key, Set<Watcher>>,
  from: Key | null,
  to: Key | null,
  tell: (one: Watcher) => void,
): void {
  const before = from === null ? undefined : index.get(from);
  const after = to === null ? undefined : index.get(to);
  before?.forEach(tell);
  if (after === before) return;
  for (const watcher of after ?? []) {
    if (!before?.has(watcher)) tell(watcher);
  }
}
