import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Transition } from "../domain/agent.ts";
import { judgeLeaseEnd } from "../domain/status-machine.ts";
import { afterLeaseEnd } from "../domain/wake-events.ts";
import { END_LEASE } from "../storage/agent-change.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { overdueLeases, type TrackedLease } from "../storage/lease-queries.ts";
import type { Distribution } from "../telemetry/metrics/distribution.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import type { AgentEntry } from "./agent-entry.ts";
import { TICK_MS } from "./lease-wheel.ts";
import type { RecentExpirations } from "./recent-expirations.ts";
import type { Registry } from "./registry.ts";

/** How often one of the replicas looks for expired leases that no replica watches, in milliseconds. */
const BACKSTOP_MS = 30_000;
/** Of a database's core: this takes longer for a very large fleet, and is done less often. */
const BACKSTOP_SHARE = 0.02;
/** When to look again at a lease that a pending heartbeat will renew. */
const PENDING_BEAT_MICROS = 100_000;
/** Expiries in the committer at once: more would only delay other changes there. */
const MOST_UNDERWAY = 2_000;

/**
 * Expires leases. The wheel makes expiry prompt. The database decides whether a lease has ended, under the lock of its row, so
 * that no heartbeat that was committed before is overlooked.
 */
export class Reaper {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #registry: Registry;
  readonly #tracks: (replica: number | null) => boolean;
  readonly #hasPendingBeat: (entry: AgentEntry) => boolean;
  readonly #log: Logger;
  readonly #backstop: PeriodicTask;
  #timer: NodeJS.Timeout | undefined;
  /** In the order of their lease ends, and how many of them are taken. */
  #due: AgentEntry[] = [];
  #taken = 0;
  /** The claws that the newest commit found silent, and the moment of that commit. */
  readonly #silentNow = new Set<string>();
  #silentAt: Micros = 0;
  readonly #lag: Distribution;
  readonly #expirations: RecentExpirations;
  readonly #onSilent: (clawIdentifier: string) => void;
  #underway = 0;

  constructor(options: {
    database: Database;
    committer: Committer;
    registry: Registry;
    log: Logger;
    metrics: Metrics;
    expirations: RecentExpirations;
    /** Whether this replica watches the leases of that replica's agents. */
    tracks(replica: number | null): boolean;
    /** Whether a heartbeat of the agent has arrived here that is not written yet. */
    hasPendingBeat(entry: AgentEntry): boolean;
    /** Called once for each claw that falls silent, by the replica that expires the first of its leases. */
    onSilentClaw(clawIdentifier: string): void;
  }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#registry = options.registry;
    this.#tracks = (replica) => options.tracks(replica);
    this.#hasPendingBeat = (entry) => options.hasPendingBeat(entry);
    this.#onSilent = (clawIdentifier) => options.onSilentClaw(clawIdentifier);
    this.#log = options.log;
    this.#lag = options.metrics.histogram("harborforge_lease_end_lag_seconds");
    this.#expirations = options.expirations;
    this.#backstop = new PeriodicTask({
      isLost,
      name: "look for unwatched leases",
      everyMs: BACKSTOP_MS,
      share: BACKSTOP_SHARE,
      log: options.log,
      run: () => this.#sweep(),
    });
  }

  start(): void {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#backstop.start();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#backstop.close();
  }

  /** Watches these leases from now on. None expires before `noneBefore`. */
  track(leases: readonly TrackedLease[], noneBefore: Micros = 0): void {
    for (const { id, agentId, leaseExpiresAt } of leases) {
      if (leaseExpiresAt === null) continue;
      this.#registry.renew(this.#registry.open(id, agentId), Math.max(leaseExpiresAt, noneBefore));
    }
  }

  /** The brake was released: asks again at once about the leases that it held back. */
  onBrakeReleased(): void {
    const now = this.#database.clock.now();
    for (const entry of this.#registry.entries()) if (entry.heldBack) this.#registry.renew(entry, now);
  }

  /** An agent that is offline or deleted has no lease to watch. */
  onTransition(transition: Transition): void {
    const entry = this.#registry.get(transition.agentId);
    if (entry === undefined || entry.id !== transition.id) return;
    if (transition.toStatus === null) this.#registry.revoke(entry);
    else if (transition.toStatus === "offline" && entry.holder === undefined && !entry.busy)
      this.#registry.revoke(entry);
  }

  #tick(): void {
    for (const entry of this.#registry.due(this.#database.clock.now())) this.#due.push(entry);
    while (this.#underway < MOST_UNDERWAY) {
      const entry = this.#due[this.#taken];
      if (entry === undefined) {
        this.#due = [];
        this.#taken = 0;
        return;
      }
      this.#taken += 1;
      this.#underway += 1;
      void this.#expire(entry).finally(() => {
        this.#underway -= 1;
      });
    }
  }

  /** A pending heartbeat blocks expiry, even if the database is slow. A replica that cannot write for long counts as isolated. */
  #postpone(entry: AgentEntry): boolean {
    if (!this.#hasPendingBeat(entry)) return false;
    this.#registry.renew(entry, this.#database.clock.now() + PENDING_BEAT_MICROS);
    return true;
  }

  async #expire(entry: AgentEntry): Promise<void> {
    if (this.#postpone(entry)) return;
    const { dueAt } = entry;
    const known = entry.agent?.status === "offline" ? undefined : entry.agent;
    try {
      await this.#committer.submit<void>({
        agentId: entry.agentId,
        id: entry.id,
        // Saves a read: the database checks the row anyway.
        ...(known === undefined ? {} : { known }),
        actor: "server",
        judge: (agent, now) => {
          const done = { kind: "done", result: undefined } as const;
          if (agent === undefined) {
            this.#registry.revoke(entry);
            return done;
          }
          const change = judgeLeaseEnd(agent);
          // If the agent was not read, its lease is unknown: renewals do not change the known state.
          const ended = agent === known || (agent.leaseExpiresAt !== null && agent.leaseExpiresAt <= now);
          if (change === undefined || !ended) {
            // Another replica watches the lease, unless a session here holds the agent or a beat here renewed the lease.
            if (!this.#tracks(agent.replicaId) && entry.holder === undefined && !entry.busy)
              this.#registry.revoke(entry);
            else {
              this.#registry.update(entry, agent);
              this.#registry.prune(entry);
            }
            return done;
          }
          // The heartbeat arrived while this change waited.
          if (this.#postpone(entry)) return done;
          return {
            kind: "write",
            write: {
              kind: "update",
              agent,
              cause: "lease_expired",
              status: change,
              lease: END_LEASE,
              held: false,
              leaseEnded: true,
              ...(agent.wakes === null ? {} : { wakes: afterLeaseEnd(agent, now) }),
            },
            result: ({ agent: after, silentClaw }) => {
              this.#registry.update(entry, after);
              if (dueAt !== null) this.#lag.observe((this.#database.clock.now() - dueAt) / 1_000_000);
              this.#expirations.expired(after.id, after.revision, after.statusChangedAt);
              if (silentClaw !== undefined) this.#onSilentClaw(silentClaw, after.statusChangedAt);
            },
            guarded: (until) => this.#registry.holdBack(entry, until),
          };
        },
      });
    } catch (error) {
      // Perhaps no other replica watches this lease.
      this.#log.warn(
        { event: "lease.expiry_failed", err: error, agentId: entry.agentId },
        "failed to expire a lease, retrying",
      );
      this.#registry.renew(entry, this.#database.clock.now() + 1_000_000);
    }
  }

  /** One event for all agents of the claw: each member of one commit, which share its moment, reports it. */
  #onSilentClaw(clawIdentifier: string, at: Micros): void {
    if (at !== this.#silentAt) this.#silentNow.clear();
    this.#silentAt = at;
    if (this.#silentNow.has(clawIdentifier)) return;
    this.#silentNow.add(clawIdentifier);
    this.#onSilent(clawIdentifier);
  }

  async #sweep(): Promise<void> {
    const overdue = await overdueLeases(this.#database);
    // The leases that are held back are known to have ended.
    const leases = overdue.filter(({ agentId }) => this.#registry.get(agentId)?.heldBack !== true);
    if (leases.length > 0)
      this.#log.info({ event: "lease.unwatched_found", leases: leases.length }, "found leases that no replica watched");
    this.track(leases);
  }
}
