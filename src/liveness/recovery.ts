import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Transition } from "../domain/agent.ts";
import { recoveryDelayMs } from "../domain/recovery-spread.ts";
import { judgeRecovery } from "../domain/status-machine.ts";
import { recoveryWithWake } from "../domain/wake-events.ts";
import { KEEP_LEASE } from "../storage/agent-change.ts";
import type { Committer } from "../storage/committer.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { DUE_PAGE, type DueRecovery, dueRecoveries } from "../storage/lease-queries.ts";
import type { Distribution } from "../telemetry/metrics/distribution.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import { LeaseWheel, TICK_MS, type Timed } from "./lease-wheel.ts";

/** How far ahead recoveries are planned: in whole seconds, so that all recoveries of one second are counted together. */
const LOOK_AHEAD_SECONDS = 2;
const LOOK_EVERY_MS = 500;
/** How often all recoveries are read again, from the beginning. */
const LOOK_AGAIN_MS = 10_000;
/** A recovery that is overdue by more was due while no replica ran. */
const OVERDUE_MS = 2_000;

const BEGINNING = { recoveryAt: 0, id: 0n };

interface Planned extends Timed {
  readonly id: bigint;
  readonly agentId: string;
  readonly recoveryAt: Micros;
}

/**
 * Recovers exhausted agents at their `recovery_at`. Every replica plans every recovery, at the same time (by a hash of the
 * agent), and the first commit wins. So no replica is elected, and no recovery depends on one replica.
 */
export class Recovery {
  readonly #database: Database;
  readonly #committer: Committer;
  readonly #log: Logger;
  readonly #lag: Distribution;
  readonly #look: PeriodicTask;
  readonly #planned = new Map<bigint, Planned>();
  readonly #wheel: LeaseWheel<Planned>;
  /** How many agents recover within each second, as first counted: later counts are smaller, since some have recovered. */
  readonly #sharing = new Map<number, number>();
  #place: { recoveryAt: Micros; id: bigint } = BEGINNING;
  #lookAgainAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { database: Database; committer: Committer; log: Logger; metrics: Metrics }) {
    this.#database = options.database;
    this.#committer = options.committer;
    this.#log = options.log;
    this.#lag = options.metrics.histogram("harborforge_recovery_lag_seconds");
    this.#wheel = new LeaseWheel<Planned>(options.database.clock.now());
    this.#look = new PeriodicTask({
      isLost,
      name: "look for recoveries",
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

  /** Plans a recovery that lies before the place up to which the database was read: the next read would find it late. */
  onTransition(transition: Transition): void {
    const { id, agentId, exhaustion } = transition;
    const planned = this.#planned.get(id);
    if (planned !== undefined && planned.recoveryAt !== exhaustion?.recoveryAt) this.#drop(planned);
    if (exhaustion === null || transition.toStatus === null) return;
    const { recoveryAt } = exhaustion;
    if (recoveryAt > this.#place.recoveryAt || this.#planned.get(id)?.recoveryAt === recoveryAt) return;
    // Transitions come one by one: `#tick` knows how many recoveries share the second.
    this.#sharing.set(secondOf(recoveryAt), (this.#sharing.get(secondOf(recoveryAt)) ?? 0) + 1);
    this.#plan([{ id, agentId, recoveryAt }]);
  }

  async #lookAhead(): Promise<void> {
    const now = performance.now();
    if (now >= this.#lookAgainAt) {
      this.#place = BEGINNING;
      this.#lookAgainAt = now + LOOK_AGAIN_MS;
    }
    const beforeSecond = Math.floor(this.#database.clock.now() / 1_000_000) + LOOK_AHEAD_SECONDS;
    const from = this.#place;
    // Before the read: from now on the log of transitions tells of recoveries before this place.
    this.#place = { recoveryAt: beforeSecond * 1_000_000 - 1, id: 2n ** 63n - 1n };
    try {
      this.#plan(await this.#read(beforeSecond, from));
    } catch (error) {
      this.#place = from;
      throw error;
    }
    for (const second of this.#sharing.keys()) if (second < beforeSecond - 60) this.#sharing.delete(second);
  }

  async #read(beforeSecond: number, from: { recoveryAt: Micros; id: bigint }): Promise<DueRecovery[]> {
    const found: DueRecovery[] = [];
    for (let place = from; ; ) {
      const page = await dueRecoveries(this.#database, beforeSecond, place);
      found.push(...page);
      const last = page.at(-1);
      if (last === undefined || page.length < DUE_PAGE) return found;
      place = last;
    }
  }

  #plan(found: readonly DueRecovery[]): void {
    const now = this.#database.clock.now();
    const fresh = found.filter(({ id, recoveryAt }) => this.#planned.get(id)?.recoveryAt !== recoveryAt);
    const overdue = fresh.filter(({ recoveryAt }) => recoveryAt < now - OVERDUE_MS * 1_000);
    const bySecond = new Map<number, number>();
    for (const { recoveryAt } of found)
      bySecond.set(secondOf(recoveryAt), (bySecond.get(secondOf(recoveryAt)) ?? 0) + 1);
    for (const [second, count] of bySecond) {
      this.#sharing.set(second, Math.max(count, this.#sharing.get(second) ?? 0));
    }
    for (const { id, agentId, recoveryAt } of fresh) {
      const late = recoveryAt < now - OVERDUE_MS * 1_000;
      const sharing = late ? overdue.length : (this.#sharing.get(secondOf(recoveryAt)) ?? 1);
      const dueAt = (late ? now : recoveryAt) + recoveryDelayMs(agentId, sharing) * 1_000;
      const former = this.#planned.get(id);
      if (former !== undefined) this.#drop(former);
      const planned: Planned = { id, agentId, recoveryAt, dueAt, tick: null };
      this.#planned.set(id, planned);
      this.#wheel.schedule(planned);
    }
  }

  #drop(planned: Planned): void {
    planned.dueAt = null;
    this.#planned.delete(planned.id);
  }

  #tick(): void {
    const now = this.#database.clock.now();
    for (const planned of this.#wheel.due(now)) {
      // More recoveries may share the second than when this one was planned.
      const sharing = this.#sharing.get(secondOf(planned.recoveryAt)) ?? 1;
      planned.dueAt = planned.recoveryAt + recoveryDelayMs(planned.agentId, sharing) * 1_000;
      if (planned.dueAt > now) this.#wheel.schedule(planned);
      else void this.#recover(planned);
    }
  }

  async #recover(planned: Planned): Promise<void> {
    let laterAt: Micros | undefined;
    const { dueAt } = planned;
    try {
      await this.#committer.submit<void>({
        agentId: planned.agentId,
        id: planned.id,
        actor: "server",
        judge: (agent, now) => {
          const change = agent === undefined ? undefined : judgeRecovery(agent, now);
          laterAt = agent?.exhaustion?.recoveryAt;
          if (agent === undefined || change === undefined) return { kind: "done", result: undefined };
          const write = {
            kind: "update",
            agent,
            cause: "recovery",
            status: recoveryWithWake(agent, change),
            lease: KEEP_LEASE,
          } as const;
          const result = (): void => {
            laterAt = undefined;
            if (dueAt !== null) this.#lag.observe((this.#database.clock.now() - dueAt) / 1_000_000);
          };
          return { kind: "write", write, result };
        },
      });
    } catch (error) {
      this.#log.warn({ event: "recovery.failed", err: error, agentId: planned.agentId }, "failed to recover an agent");
    } finally {
      if (this.#planned.get(planned.id) === planned) this.#planned.delete(planned.id);
      // It was too early, by a better reading of the clock. The next read begins after it.
      if (laterAt !== undefined && laterAt <= this.#place.recoveryAt) this.#plan([{ ...planned, recoveryAt: laterAt }]);
    }
  }
}

function secondOf(instant: Micros): number {
  return Math.floor(instant / 1_000_000);
}
