import type { Micros } from "../contract/time.ts";
import type { Transition } from "../domain/agent.ts";
import { judgeLeaseEnd } from "../domain/status-machine.ts";
import { PeriodicTask } from "../scheduling/periodic-task.ts";
import { END_LEASE } from "../storage/agent-change.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { overdueLeases, type WatchedLease } from "../storage/lease-queries.ts";
import type { AgentEntry } from "./agent-entry.ts";
import { TICK_MS } from "./lease-wheel.ts";
import type { Logger } from "./logger.ts";
import type { Registry } from "./registry.ts";

/** How often one of the replicas looks through all leases, for those that nobody watches. */
const BACKSTOP_MS = 30_000;
/** Of a database's core: a very large fleet is looked through less often. */
const BACKSTOP_SHARE = 0.02;
/** How soon a lease is looked at again whose agent has been heard, once that should be written. */
const HEARD_AGAIN_MICROS = 100_000;
/** Expiries in the committer at once: more would only queue there, before whatever else is to be committed. */
const MOST_UNDERWAY = 2_000;

/**
 * Ends leases. The wheel makes it prompt; whether a lease has ended is for the database to say, under the lock of its
 * row, so that a heartbeat that was committed a moment before is never overlooked.
 */
export class Reaper {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #registry: Registry;
  readonly #watches: (replica: number | null) => boolean;
  readonly #hears: (entry: AgentEntry) => boolean;
  readonly #log: Logger;
  readonly #backstop: PeriodicTask;
  #timer: NodeJS.Timeout | undefined;
  /** In the order in which their leases ended, and how many of them are taken on. */
  #due: AgentEntry[] = [];
  #taken = 0;
  /** Claws that it was just said of, and the moment of the commit that said so. */
  readonly #saidOf = new Set<string>();
  #saidAt: Micros = 0;
  /** How many claws fell silent, as this replica found. */
  silentClaws = 0;
  #underway = 0;

  constructor(options: {
    database: Database;
    committer: Committer;
    registry: Registry;
    log: Logger;
    /** Whether this replica watches the leases of that one's agents. */
    watches(replica: number | null): boolean;
    /** Whether a beat of the agent is on its way to the database, of which its row tells nothing yet. */
    hears(entry: AgentEntry): boolean;
  }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#registry = options.registry;
    this.#watches = (replica) => options.watches(replica);
    this.#hears = (entry) => options.hears(entry);
    this.#log = options.log;
    this.#backstop = new PeriodicTask({
      isLost,
      name: "look for leases that nobody watches",
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

  /** Leases that this replica is to watch from now on. */
  watch(leases: readonly WatchedLease[], noneBefore: Micros = 0): void {
    for (const { id, agentId, leaseExpiresAt } of leases) {
      if (leaseExpiresAt === null) continue;
      this.#registry.expect(this.#registry.open(id, agentId), Math.max(leaseExpiresAt, noneBefore));
    }
  }

  /** What held leases back is over: they need not wait for the moment that each of them was given. */
  released(): void {
    const now = this.#database.clock.now();
    for (const entry of this.#registry.entries()) if (entry.heldBack) this.#registry.expect(entry, now);
  }

  /** Somebody changed an agent: what is offline or gone has no lease to watch. */
  changed(transition: Transition): void {
    const entry = this.#registry.get(transition.agentId);
    if (entry === undefined || entry.id !== transition.id) return;
    if (transition.toStatus === null) this.#registry.forget(entry);
    else if (transition.toStatus === "offline" && entry.holder === undefined && !entry.busy)
      this.#registry.forget(entry);
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

  /** Heard is heard, also where the database is slow. A replica that cannot write for long counts as isolated. */
  #putOff(entry: AgentEntry): boolean {
    if (!this.#hears(entry)) return false;
    this.#registry.expect(entry, this.#database.clock.now() + HEARD_AGAIN_MICROS);
    return true;
  }

  async #expire(entry: AgentEntry): Promise<void> {
    if (this.#putOff(entry)) return;
    const known = entry.agent?.status === "offline" ? undefined : entry.agent;
    try {
      await this.#committer.submit<void>({
        agentId: entry.agentId,
        id: entry.id,
        // Spares the reading: the database looks at the row anyway.
        ...(known === undefined ? {} : { known }),
        actor: "server",
        judge: (agent, now) => {
          const done = { kind: "done", result: undefined } as const;
          if (agent === undefined) {
            this.#registry.forget(entry);
            return done;
          }
          const change = judgeLeaseEnd(agent);
          // Of an agent that was not read the lease is unknown: renewals do not change what is known of it.
          const ended = agent === known || (agent.leaseExpiresAt !== null && agent.leaseExpiresAt <= now);
          if (change === undefined || !ended) {
            // Another replica's to watch, unless a session here holds it or the lease was renewed by a beat here.
            if (!this.#watches(agent.replicaId) && entry.holder === undefined && !entry.busy)
              this.#registry.forget(entry);
            else {
              this.#registry.learn(entry, agent);
              this.#registry.dismiss(entry);
            }
            return done;
          }
          // It came while this waited for its turn.
          if (this.#putOff(entry)) return done;
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
            },
            result: ({ agent: after, silentClaw }) => {
              this.#registry.learn(entry, after);
              if (silentClaw !== undefined) this.#silent(silentClaw, after.statusChangedAt);
            },
            guarded: (until) => this.#registry.holdBack(entry, until),
          };
        },
      });
    } catch (error) {
      // Tried again: nobody else may be watching this lease.
      this.#log.warn({ err: error, agentId: entry.agentId }, "a lease that ended cannot be ended");
      this.#registry.expect(entry, this.#database.clock.now() + 1_000_000);
    }
  }

  /** One event, however many agents it has: the members of one group, which share its moment, each say so. */
  #silent(clawIdentifier: string, at: Micros): void {
    if (at !== this.#saidAt) this.#saidOf.clear();
    this.#saidAt = at;
    if (this.#saidOf.has(clawIdentifier)) return;
    this.#saidOf.add(clawIdentifier);
    this.silentClaws += 1;
    this.#log.warn({ clawIdentifier }, "a claw fell silent: all its agents go offline");
  }

  async #sweep(): Promise<void> {
    const overdue = await overdueLeases(this.#database);
    // Of those that are held back is known already that they have ended.
    const leases = overdue.filter(({ agentId }) => this.#registry.get(agentId)?.heldBack !== true);
    if (leases.length > 0) this.#log.info({ leases: leases.length }, "found leases that nobody watched");
    this.watch(leases);
  }
}
