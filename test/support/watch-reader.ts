import { setTimeout as sleep } from "node:timers/promises";
import { type AgentFilter, agentOf, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import type { WatchedChange, WatchMessage, WatchQuery } from "../../src/domain/watch-message.ts";

const DEADLINE_MS = 40_000;

export interface Watchable {
  watch(query: WatchQuery, signal: AbortSignal): AsyncIterable<WatchMessage>;
}

export interface WatchReaderOptions {
  readonly filter?: Partial<AgentFilter>;
  readonly afterRevision?: bigint;
  readonly bookmarkMs?: number;
  readonly conflate?: boolean;
  /** The pause of the reader between two messages. */
  readonly pace?: () => Promise<unknown>;
}

export function watchQuery({
  filter,
  afterRevision,
  bookmarkMs = 60_000,
  conflate = false,
}: WatchReaderOptions = {}): WatchQuery {
  return { filter: { ...EVERY_AGENT, ...filter }, afterRevision, conflate, bookmarkMs };
}

/** The fields of an agent that a watcher knows, in a form that can be compared. */
export function seen(agent: { id: bigint; agentId: string; clawIdentifier: string; status: string; revision: bigint }) {
  const { id, agentId, clawIdentifier, status, revision } = agent;
  return `${agentId} #${id} ${clawIdentifier} ${status} @${revision}`;
}

/**
 * A client that keeps the set of agents by `agent_id`, like a simple one, and checks each change: an agent that
 * enters must be new, and one that is updated or leaves must be there.
 */
export class WatchReader {
  readonly messages: WatchMessage[] = [];
  /** All changes, with those that came within the snapshot. */
  readonly changes: WatchedChange[] = [];
  /** The revisions of the changes that came after the snapshot. */
  readonly revisions: bigint[] = [];
  readonly set = new Map<string, { readonly id: bigint; readonly text: string }>();
  /** The set at the moment when the snapshot was complete. */
  snapshot: readonly string[] | undefined;
  snapshotRevision: bigint | undefined;
  /** The set as of each revision that a message named, from the snapshot on. */
  readonly states = new Map<bigint, readonly string[]>();
  /** The revision to resume from. */
  revision: bigint;
  error: unknown;
  ended = false;
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;

  constructor(watchable: Watchable, options: WatchReaderOptions = {}) {
    const query = watchQuery(options);
    this.revision = query.afterRevision ?? 0n;
    this.#done = this.#read(watchable, query, options.pace).then(
      () => {
        this.ended = true;
      },
      (error: unknown) => {
        this.error = error;
        this.ended = true;
      },
    );
  }

  /** Fails as soon as the watch ends, or after 40 s. */
  async until(condition: (reader: this) => boolean): Promise<void> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!condition(this)) {
      if (this.ended) throw this.error ?? new Error("the watch ended");
      if (performance.now() > deadline) {
        throw new Error(`not yet: at revision ${this.revision} after ${this.messages.length} messages`);
      }
      await sleep(2);
    }
  }

  /** Waits for the end of the watch. @returns its error */
  async end(): Promise<unknown> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!this.ended) {
      if (performance.now() > deadline) throw new Error("the watch has not ended");
      await sleep(2);
    }
    return this.error;
  }

  get texts(): readonly string[] {
    return [...this.set.values()].map(({ text }) => text).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  async #read(watchable: Watchable, query: WatchQuery, pace: WatchReaderOptions["pace"]): Promise<void> {
    const passes = predicateOf(query.filter);
    for await (const message of watchable.watch(query, this.#abort.signal)) {
      this.messages.push(message);
      for (const agent of message.snapshotAgents) {
        if (this.snapshot !== undefined) throw new Error(`${agent.agentId} is shown after the snapshot`);
        if (this.set.has(agent.agentId)) throw new Error(`${agent.agentId} is shown twice`);
        if (!passes(agent)) throw new Error(`${agent.agentId} does not pass the filter`);
        this.set.set(agent.agentId, { id: agent.id, text: seen(agent) });
      }
      for (const change of message.changes) this.#apply(change, query);
      if (message.bookmark?.snapshotComplete) {
        this.snapshot = this.texts;
        this.snapshotRevision = message.revision;
      }
      const inSnapshot = query.afterRevision === undefined && this.snapshot === undefined;
      if (inSnapshot ? message.revision !== 0n : message.revision < this.revision) {
        throw new Error(`the revision of a message is ${message.revision} after ${this.revision}`);
      }
      this.revision = message.revision;
      if (this.snapshot !== undefined) this.states.set(this.revision, this.texts);
      await pace?.();
    }
  }

  #apply(change: WatchedChange, query: WatchQuery): void {
    const keepsSet = query.afterRevision === undefined;
    const { type, transition } = change;
    const { agentId, id, revision } = transition;
    const last = this.changes.at(-1);
    // A merged change has the place of the first of its parts.
    if (!query.conflate && last !== undefined && last.transition.revision >= revision) {
      throw new Error(`change ${revision} comes after ${last.transition.revision}`);
    }
    if (revision <= this.revision) throw new Error(`change ${revision} comes after a message of ${this.revision}`);
    this.changes.push(change);
    if (!keepsSet || this.snapshot !== undefined) this.revisions.push(revision);
    if (!keepsSet) return;
    const known = this.set.get(agentId);
    if (type === "entered" ? known !== undefined : known?.id !== id) {
      throw new Error(`${agentId} #${id} ${type} at ${revision}, but the set has ${known?.text}`);
    }
    if (type === "left") this.set.delete(agentId);
    else this.set.set(agentId, { id, text: seen(agentOf(transition)) });
  }
}
