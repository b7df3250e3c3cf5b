import type { Logger } from "../../common/logging/logger.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import { Queue } from "../../common/scheduling/queue.ts";
import { lockedAgents } from "../storage/change-group.ts";
import type { Database } from "../storage/database.ts";
import { failureKind, isLockTimeout, isPermanent, mayBeOneRow } from "../storage/failures.ts";
import { renewLeases } from "../storage/lease-queries.ts";
import type { AgentEntry } from "./agent-entry.ts";
import type { HeartbeatMetrics } from "./heartbeat-metrics.ts";
import type { PendingBeat } from "./pending-beat.ts";
import type { Registry } from "./registry.ts";

/** A batch is written when so many agents wait, */
const LARGEST_BATCH = 1_000;
/** or when the first of them has waited so long, in milliseconds. */
const FLUSH_MS = 100;
/** Failures in a row after which the writer divides a batch, to find the agent that the database cannot write. */
const MOST_FAILURES_OF_BATCH = 2;
/** Batches that are written at once, each on a connection of its own. */
const BATCHES_UNDERWAY = 2;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 1_000;

interface Batch {
  readonly entries: AgentEntry[];
  readonly renewals: { id: bigint; epoch: bigint; revision: bigint; leaseMs: number; held: boolean }[];
  readonly beats: PendingBeat[][];
}

/**
 * Writes the heartbeats that only renew leases: the newest of each agent, many in one statement. Beats whose agents changed
 * meanwhile go back to the intake, which judges them again.
 */
export class BeatWriter {
  readonly #database: Database;
  readonly #registry: Registry;
  readonly #log: Logger;
  readonly #metrics: HeartbeatMetrics;
  readonly #onApplied: (entry: AgentEntry, beats: readonly PendingBeat[]) => void;
  readonly #onMissed: (entry: AgentEntry, beats: readonly PendingBeat[]) => void;
  readonly #pending = new Queue<AgentEntry>();
  #timer: NodeJS.Timeout | undefined;
  #underway = 0;
  /** When each batch was sent, by `performance.now()`; the oldest first. */
  readonly #sentAt = new Set<{ readonly at: number }>();
  #closing = false;
  #idle: (() => void)[] = [];

  constructor(options: {
    database: Database;
    registry: Registry;
    log: Logger;
    metrics: HeartbeatMetrics;
    onApplied(entry: AgentEntry, beats: readonly PendingBeat[]): void;
    onMissed(entry: AgentEntry, beats: readonly PendingBeat[]): void;
  }) {
    this.#database = options.database;
    this.#registry = options.registry;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#onApplied = options.onApplied;
    this.#onMissed = options.onMissed;
  }

  /** The entry has a first renewal. Call once for each batch of renewals. */
  add(entry: AgentEntry): void {
    this.#pending.push(entry);
    if (this.#pending.size >= LARGEST_BATCH) this.#flushSoon(0);
    else this.#flushSoon(FLUSH_MS);
  }

  get waiting(): boolean {
    return this.#pending.size > 0 || this.#underway > 0;
  }

  /** For how many milliseconds the oldest batch has been on its way to the database; 0: none is. */
  get stuckMs(): number {
    const [oldest] = this.#sentAt;
    return oldest === undefined ? 0 : performance.now() - oldest.at;
  }

  /** Resolves when everything that waits is written, or given back to the intake. */
  async drain(): Promise<void> {
    this.#closing = true;
    while (this.waiting) {
      this.#flush();
      if (this.#underway > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
    clearTimeout(this.#timer);
  }

  #flushSoon(delayMs: number): void {
    if (delayMs === 0) {
      this.#flush();
      return;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, delayMs);
  }

  #flush(): void {
    while (this.#pending.size > 0 && this.#underway < BATCHES_UNDERWAY) {
      const batch = this.#take();
      if (batch.entries.length === 0) continue;
      this.#underway += 1;
      const sent = { at: performance.now() };
      this.#sentAt.add(sent);
      void this.#write(batch).finally(() => {
        this.#underway -= 1;
        this.#sentAt.delete(sent);
        for (const resolve of this.#idle.splice(0)) resolve();
        if (this.#pending.size >= LARGEST_BATCH || this.#closing) this.#flush();
        else if (this.#pending.size > 0) this.#flushSoon(FLUSH_MS);
      });
    }
  }

  #take(): Batch {
    const batch: Batch = { entries: [], renewals: [], beats: [] };
    for (let taken = 0; taken < LARGEST_BATCH; taken += 1) {
      const entry = this.#pending.take();
      if (entry === undefined) break;
      const waiting = entry.takeRenewals();
      const beats = waiting.some(isAbandoned) ? waiting.filter((beat) => !isAbandoned(beat)) : waiting;
      const newest = beats.at(-1);
      // A change of the agent took its renewals along, or their callers are gone.
      if (newest === undefined) continue;
      const { agent, judgedBy } = entry;
      if (agent === undefined || agent.epoch !== judgedBy?.epoch || agent.revision !== judgedBy.revision) {
        this.#onMissed(entry, beats);
        continue;
      }
      entry.underway = true;
      batch.entries.push(entry);
      batch.beats.push(beats);
      batch.renewals.push({
        id: entry.id,
        epoch: agent.epoch,
        revision: agent.revision,
        leaseMs: newest.leaseMs,
        held: newest.holder !== undefined && newest.holder === entry.holder,
      });
    }
    return batch;
  }

  async #write(batch: Batch): Promise<void> {
    if (batch.entries.length === 0) return;
    const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
    for (let failures = 0; ; ) {
      try {
        const { missed, appliedAt } = await renewLeases(this.#database, batch.renewals);
        this.#settle(batch, missed, appliedAt);
        return;
      } catch (error) {
        if (isPermanent(failureKind(error)))
          this.#log.error(
            { event: "heartbeat.write_failed", err: error },
            "failed to write a batch of heartbeats, retrying",
          );
        // Retried without end: a heartbeat is acknowledged when it is applied. When the replica stops, the agents send
        // their next heartbeats to other replicas.
        if (this.#closing) {
          this.#giveBack(batch);
          return;
        }
        if (isLockTimeout(error)) {
          const locked = await lockedAgents(
            this.#database.feed,
            batch.entries.map(({ agentId }) => agentId),
          );
          if (locked.size > 0) {
            this.#giveBack(partOf(batch, ({ agentId }) => locked.has(agentId)));
            await this.#write(partOf(batch, ({ agentId }) => !locked.has(agentId)));
            return;
          }
        }
        failures = mayBeOneRow(error) ? failures + 1 : 0;
        if (failures >= MOST_FAILURES_OF_BATCH) {
          await this.#divide(batch);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, backoff.next()));
      }
    }
  }

  /**
   * Writes the halves of a batch by themselves. Perhaps the database cannot write one agent, such as one whose row it cannot
   * read: the others are written without it.
   */
  async #divide(batch: Batch): Promise<void> {
    if (batch.entries.length === 1) {
      this.#giveBack(batch);
      return;
    }
    const middle = Math.ceil(batch.entries.length / 2);
    await Promise.all([
      this.#write(partOf(batch, (_, place) => place < middle)),
      this.#write(partOf(batch, (_, place) => place >= middle)),
    ]);
  }

  /** The intake sends them through the committer, where an agent that cannot be written blocks no other. */
  #giveBack(batch: Batch): void {
    this.#settle(batch, new Set(batch.entries.map(({ id }) => id)), undefined);
  }

  #settle(batch: Batch, missed: ReadonlySet<bigint>, appliedAt: number | undefined): void {
    for (const [place, entry] of batch.entries.entries()) {
      const beats = batch.beats[place] ?? [];
      const renewal = batch.renewals[place];
      if (renewal === undefined || appliedAt === undefined || missed.has(entry.id)) {
        entry.agent = undefined;
        this.#onMissed(entry, beats);
        continue;
      }
      this.#metrics.renewing(entry, appliedAt, renewal.leaseMs);
      this.#registry.renew(entry, appliedAt + renewal.leaseMs * 1_000);
      this.#onApplied(entry, beats);
    }
  }
}

function isAbandoned(beat: PendingBeat): boolean {
  return beat.abandoned;
}

function partOf(batch: Batch, isIn: (entry: AgentEntry, place: number) => boolean): Batch {
  const isThere = (_: unknown, place: number): boolean => {
    const entry = batch.entries[place];
    return entry !== undefined && isIn(entry, place);
  };
  return {
    entries: batch.entries.filter(isThere),
    renewals: batch.renewals.filter(isThere),
    beats: batch.beats.filter(isThere),
  };
}
