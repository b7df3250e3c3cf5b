import type { AgentStatus, Unknown } from "../../common/contract/enum-names.ts";
import type { Transition } from "../domain/agent.ts";
import type { Watcher } from "./watcher.ts";

/**
 * The watchers by their filters, so that the cost of a transition grows with its receivers and not with all watchers. The
 * index uses one field of each filter, the most selective one. The watcher itself checks the other fields.
 */
export class WatcherIndex {
  readonly #byAgent = new Map<string, Set<Watcher>>();
  readonly #byUser = new Map<bigint, Set<Watcher>>();
  readonly #byClaw = new Map<string, Set<Watcher>>();
  readonly #byStatus = new Map<AgentStatus | Unknown, Set<Watcher>>();
  readonly #ofEverything = new Set<Watcher>();

  add(watcher: Watcher): void {
    const { agentIds, userIds, clawIdentifiers, statuses } = watcher.query.filter;
    if (agentIds.length > 0) enter(this.#byAgent, agentIds, watcher);
    else if (userIds.length > 0) enter(this.#byUser, userIds, watcher);
    else if (clawIdentifiers.length > 0) enter(this.#byClaw, clawIdentifiers, watcher);
    else if (statuses.length > 0) enter(this.#byStatus, statuses, watcher);
    else this.#ofEverything.add(watcher);
  }

  /** Without effect for a watcher that is not in the index. */
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
   * Calls `visit` once with each watcher that may receive a transition. The agent before and after it counts, since a watcher
   * also receives what leaves its filter.
   */
  forEach(
    { agentId, userId, fromClaw, toClaw, fromStatus, toStatus }: Transition,
    visit: (one: Watcher) => void,
  ): void {
    this.#byAgent.get(agentId)?.forEach(visit);
    this.#byUser.get(userId)?.forEach(visit);
    eachOfBoth(this.#byClaw, fromClaw, toClaw, visit);
    eachOfBoth(this.#byStatus, fromStatus, toStatus, visit);
    this.#ofEverything.forEach(visit);
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
  visit: (one: Watcher) => void,
): void {
  const before = from === null ? undefined : index.get(from);
  const after = to === null ? undefined : index.get(to);
  before?.forEach(visit);
  if (after === before) return;
  for (const watcher of after ?? []) {
    if (!before?.has(watcher)) visit(watcher);
  }
}
