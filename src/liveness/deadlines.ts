import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Agent } from "../domain/agent.ts";
import type { Committer, Verdict } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { type StoredDeadline, storedDeadlines } from "../storage/deadline-queries.ts";
import { isLost } from "../storage/failures.ts";
import { DEADLINE_RULES } from "./deadline-rules.ts";
import { LeaseWheel, TICK_MS, type Timed } from "./lease-wheel.ts";

/**
 * How often a replica reads the deadlines of the agents that it watches, in milliseconds. A deadline that was stored less
 * than this before it passes is found late.
 */
const LOOK_EVERY_MS = 500;
/** How far ahead it reads: at least two reads. */
const LOOK_AHEAD_MS = 5_000;
/** Of a database's core: a very large fleet is read less often. */
const LOOK_SHARE = 0.1;
/** When to ask again about a deadline while a heartbeat of its agent waits here. */
const PENDING_BEAT_MICROS = 100_000;
const RETRY_MICROS = 1_000_000;
/** Deadlines in the committer at once: more would only delay other changes there. */
const MOST_UNDERWAY = 1_000;

interface Planned extends StoredDeadline, Timed {
  /** The last read of the database that found it. */
  look: number;
}

/**
 * Acts on stored deadlines of agents: those in the view `agent_deadlines`, by `DEADLINE_RULES`. The database stores them, so
 * they survive every replica. The replica that watches the lease of an agent watches its deadlines as well, and the adopter
 * of a failed replica takes them over. The timer wheel makes them prompt. The database decides under the lock of the
 * agent's rows whether a deadline has passed, or an outage of the agent's replica extends it.
 */
export class Deadlines {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #replica: number;
  readonly #isAwake: () => boolean;
  readonly #hasPendingBeat: (agentId: string) => boolean;
  readonly #log: Logger;
  readonly #look: PeriodicTask;
  readonly #wheel: LeaseWheel<Planned>;
  readonly #planned = new Map<string, Planned>();
  #looks = 0;
  #underway = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: {
    database: Database;
    committer: Committer;
    replica: number;
    log: Logger;
    /** False while this process may have heartbeats in its sockets that it did not read in time. */
    isAwake(): boolean;
    /** Whether a heartbeat of the agent has arrived here that is not written yet. */
    hasPendingBeat(agentId: string): boolean;
  }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#replica = options.replica;
    this.#isAwake = () => options.isAwake();
    this.#hasPendingBeat = (agentId) => options.hasPendingBeat(agentId);
    this.#log = options.log;
    this.#wheel = new LeaseWheel<Planned>(options.database.clock.now());
    this.#look = new PeriodicTask({
      isLost,
      name: "look for deadlines",
      everyMs: LOOK_EVERY_MS,
      share: LOOK_SHARE,
      log: options.log,
      run: () => this.#lookAhead(),
    });
  }

  start(): void {
    this.#look.start();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#look.close();
  }

  async #lookAhead(): Promise<void> {
    this.#looks += 1;
    const before = this.#database.clock.now() + LOOK_AHEAD_MS * 1_000;
    for await (const page of storedDeadlines(this.#database, this.#replica, before))
      for (const deadline of page) this.#plan(deadline);
    for (const planned of this.#planned.values()) if (planned.look !== this.#looks) this.#drop(planned);
  }

  #plan(deadline: StoredDeadline): void {
    const key = keyOf(deadline);
    const known = this.#planned.get(key);
    if (known?.storedAt === deadline.storedAt && known.replicaId === deadline.replicaId) {
      known.look = this.#looks;
      return;
    }
    if (known !== undefined) this.#drop(known);
    const planned: Planned = { ...deadline, dueAt: deadline.storedAt, tick: null, look: this.#looks };
    this.#planned.set(key, planned);
    this.#wheel.schedule(planned);
  }

  #drop(planned: Planned): void {
    planned.dueAt = null;
    const key = keyOf(planned);
    if (this.#planned.get(key) === planned) this.#planned.delete(key);
  }

  #askAgain(planned: Planned, at: Micros): void {
    if (this.#planned.get(keyOf(planned)) !== planned) return;
    planned.dueAt = at;
    this.#wheel.schedule(planned);
  }

  #tick(): void {
    const now = this.#database.clock.now();
    const isAwake = this.#isAwake();
    for (const planned of this.#wheel.due(now)) {
      if (!isAwake || this.#hasPendingBeat(planned.agentId)) this.#askAgain(planned, now + PENDING_BEAT_MICROS);
      else if (this.#underway >= MOST_UNDERWAY) this.#askAgain(planned, now);
      else void this.#act(planned);
    }
  }

  async #act(planned: Planned): Promise<void> {
    this.#underway += 1;
    const { agentId, id, kind } = planned;
    try {
      const again = await this.#committer.submit<Micros | undefined>({
        agentId,
        id,
        actor: "server",
        judge: (agent, now) => this.#judge(planned, agent, now),
      });
      if (again === undefined) this.#drop(planned);
      else this.#askAgain(planned, again);
    } catch (error) {
      this.#log.warn({ event: "deadline.failed", err: error, agentId, kind }, "failed to act on a deadline, retrying");
      this.#askAgain(planned, this.#database.clock.now() + RETRY_MICROS);
    } finally {
      this.#underway -= 1;
    }
  }

  /** The result of the verdict: when to ask again; undefined: not any more. */
  #judge(planned: Planned, agent: Agent | undefined, now: Micros): Verdict<Micros | undefined> {
    const done = (again: Micros | undefined) => ({ kind: "done", result: again }) as const;
    // Another replica may watch the agent now. The next read tells.
    if (agent === undefined || agent.replicaId !== planned.replicaId) return done(undefined);
    const rule = DEADLINE_RULES[planned.kind];
    const dueAt = rule.dueAt(agent);
    if (dueAt === null || dueAt > now) return done(dueAt ?? undefined);
    // The heartbeat arrived while this change waited.
    if (this.#hasPendingBeat(planned.agentId)) return done(now + PENDING_BEAT_MICROS);
    const write = rule.write(agent, now);
    if (write === undefined) return done(undefined);
    return {
      kind: "write",
      write: { ...write, deadline: planned.kind },
      result: () => undefined,
      guarded: (until) => until,
    };
  }
}

function keyOf({ id, kind }: Pick<StoredDeadline, "id" | "kind">): string {
  return `${kind} ${id}`;
}
