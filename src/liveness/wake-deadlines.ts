import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Agent } from "../domain/agent.ts";
import type { Wake, WakeWrite } from "../domain/wake.ts";
import { isTerminal } from "../domain/wake.ts";
import { obstacleTo } from "../domain/wake-admission.ts";
import { idle } from "../domain/wake-beats.ts";
import { stepOf } from "../domain/wake-machine.ts";
import { KEEP_LEASE } from "../storage/agent-change.ts";
import type { Committer, Verdict } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import type { WakeFacts } from "../storage/wake-facts.ts";
import { type DueWake, dueWakes } from "../storage/wake-queries.ts";
import { LeaseWheel, TICK_MS, type Timed } from "./lease-wheel.ts";

/** How often the deadlines are read, in milliseconds: more often than the shortest `answer_within`. */
const LOOK_EVERY_MS = 500;
/** How far ahead: at least two reads. */
const LOOK_AHEAD_MS = 2_000;
/** A replica that does not watch the agent acts so many milliseconds later: in case that the other one is gone. */
const OTHERS_LATER_MS = 500;
/** When to ask again about an offer while a heartbeat of its agent waits here. */
const PENDING_BEAT_MICROS = 100_000;
const RETRY_MICROS = 1_000_000;
/** Deadlines in the committer at once: more would only delay other changes there. */
const MOST_UNDERWAY = 1_000;

interface Planned extends DueWake, Timed {
  /** The last read of the database that found it. */
  look: number;
}

/**
 * Acts on the deadlines of wakes. The database stores them, and every replica plans all of them: the one that watches the
 * agent acts first, and the others shortly after. So no deadline depends on one replica. The commit decides by the clock of
 * the database, under the lock of the agent's row, and an outage may extend the deadline there.
 */
export class WakeDeadlines {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #replica: number;
  readonly #isAwake: () => boolean;
  readonly #hasPendingBeat: (agentId: string) => boolean;
  readonly #log: Logger;
  readonly #look: PeriodicTask;
  readonly #wheel: LeaseWheel<Planned>;
  readonly #planned = new Map<bigint, Planned>();
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
      name: "look for deadlines of wakes",
      everyMs: LOOK_EVERY_MS,
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
    for await (const page of dueWakes(this.#database, before)) for (const due of page) this.#plan(due);
    for (const planned of this.#planned.values()) if (planned.look !== this.#looks) this.#drop(planned);
  }

  #plan(due: DueWake): void {
    const known = this.#planned.get(due.id);
    if (known?.storedAt === due.storedAt && known.watcher === due.watcher) {
      known.look = this.#looks;
      return;
    }
    if (known !== undefined) this.#drop(known);
    const laterMs = due.watcher === this.#replica ? 0 : OTHERS_LATER_MS;
    const planned: Planned = { ...due, dueAt: due.storedAt + laterMs * 1_000, tick: null, look: this.#looks };
    this.#planned.set(due.id, planned);
    this.#wheel.schedule(planned);
  }

  #drop(planned: Planned): void {
    planned.dueAt = null;
    if (this.#planned.get(planned.id) === planned) this.#planned.delete(planned.id);
  }

  #askAgain(planned: Planned, at: Micros): void {
    if (this.#planned.get(planned.id) !== planned) return;
    planned.dueAt = at;
    this.#wheel.schedule(planned);
  }

  #tick(): void {
    const now = this.#database.clock.now();
    const isAwake = this.#isAwake();
    for (const planned of this.#wheel.due(now)) {
      if (!isAwake) this.#askAgain(planned, now + PENDING_BEAT_MICROS);
      else if (this.#underway >= MOST_UNDERWAY) this.#askAgain(planned, now);
      else void this.#act(planned);
    }
  }

  async #act(planned: Planned): Promise<void> {
    this.#underway += 1;
    const { agentId, agent: id, wakeId } = planned;
    try {
      const again = await this.#committer.submit<Micros | undefined>({
        agentId,
        id,
        actor: "server",
        facts: { wakeIds: [wakeId], admission: true },
        judge: (agent, now, facts) => this.#judge(planned, agent, now, facts),
      });
      if (again === undefined) this.#drop(planned);
      else this.#askAgain(planned, again);
    } catch (error) {
      this.#log.warn(
        { event: "wake.deadline_failed", err: error, agentId, wakeId },
        "failed to act on the deadline of a wake, retrying",
      );
      this.#askAgain(planned, this.#database.clock.now() + RETRY_MICROS);
    } finally {
      this.#underway -= 1;
    }
  }

  /** The result of the verdict: when to ask again; undefined: not any more. */
  #judge(
    planned: Planned,
    agent: Agent | undefined,
    now: Micros,
    { wakes, admissions }: WakeFacts,
  ): Verdict<Micros | undefined> {
    const done = (again?: Micros) => ({ kind: "done", result: again }) as const;
    const wake = wakes.get(planned.wakeId)?.wake;
    // A deletion ends the wakes of its agent.
    if (agent === undefined || wake === undefined || wake.agent !== agent.id) return done();
    const dueAt = dueAtOf(wake);
    if (dueAt === null) return done();
    if (dueAt > now) return done(dueAt);
    // The answer arrived in time, and waits to be written.
    if (wake.state === "offered" && wake.expiresAt > now && this.#hasPendingBeat(agent.agentId)) {
      return done(now + PENDING_BEAT_MICROS);
    }
    const admission = admissions.get(agent.id);
    const obstacle = admission && obstacleTo(agent, admission, wake.id, now);
    const write = writeOf(wake, now, obstacle?.reason ?? "limited");
    if (write === undefined) return done();
    const isOffered = wake.state === "offered";
    return {
      kind: "write",
      write: {
        kind: "update",
        agent,
        cause: "wake",
        ...(isOffered ? { status: idle() } : {}),
        lease: KEEP_LEASE,
        wakes: [write],
      },
      result: () => undefined,
      guarded: (until) => until,
    };
  }
}

function dueAtOf(wake: Wake): Micros | null {
  switch (wake.state) {
    case "queued":
      return wake.expiresAt;
    case "offered":
      return wake.answerBy;
    case "accepted":
      return wake.abandonAt;
    default:
      return null;
  }
}

function writeOf(wake: Wake, now: Micros, obstacle: NonNullable<Wake["reason"]>): WakeWrite | undefined {
  const { state } = wake;
  if (isTerminal(state)) return undefined;
  switch (state) {
    case "queued": {
      const write = stepOf({ ...wake, state }, "expire", now, obstacle);
      return write && { ...write, due: "expiry" };
    }
    case "offered": {
      const write = stepOf({ ...wake, state }, "no_answer", now);
      return write && { ...write, due: "answer" };
    }
    case "accepted": {
      const write = stepOf({ ...wake, state }, "abandon", now);
      return write && { ...write, due: "abandon" };
    }
    default:
      return undefined;
  }
}
