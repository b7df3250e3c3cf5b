import type { LogEvent, LogLevel } from "../../common/logging/log-events.ts";
import type { Facts, Logger } from "../../common/logging/logger.ts";
import type { Transition } from "../../src/domain/agent.ts";
import { createTestDatabase } from "./cluster.ts";
import { openReplica, type Replica, type ReplicaOptions } from "./replica.ts";
import { alive, type TestStream } from "./replica-stream.ts";
import { until } from "./until.ts";

/** Microseconds in a millisecond. */
export const MS = 1_000;

/** Replicas of one database, which ends with `undo`. */
export async function openReplicas(
  undo: AsyncDisposableStack,
  ...options: ReplicaOptions[]
): Promise<[Replica, ...Replica[]]> {
  const { url } = undo.use(await createTestDatabase());
  const opened = await Promise.all(options.map((option) => openReplica(url, option)));
  for (const replica of opened) undo.use(replica);
  const [first, ...others] = opened;
  if (first === undefined) throw new TypeError("at least one replica");
  return [first, ...others];
}

/** Agents that beat continuously, each message as soon as it is due, until disposal. */
export class Beating implements Disposable {
  readonly #timer: NodeJS.Timeout;

  constructor(stream: () => TestStream, agentIds: readonly string[], everyMs: number) {
    const send = () => stream().send(...agentIds.map(alive));
    send();
    this.#timer = setInterval(send, everyMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

interface KeptLine {
  readonly level: LogLevel;
  readonly facts: { readonly event: string; readonly [fact: string]: unknown };
}

/** A recorded log. */
export class KeptLog implements Logger {
  readonly lines: KeptLine[] = [];
  readonly info = (facts: Facts<"info">) => this.#keep("info", facts);
  readonly warn = (facts: Facts<"warn">) => this.#keep("warn", facts);
  readonly error = (facts: Facts<"error">) => this.#keep("error", facts);
  readonly debug = (facts: Facts<"debug">) => this.#keep("debug", facts);

  /** The lines of an event. */
  of(event: LogEvent): readonly KeptLine[] {
    return this.lines.filter(({ facts }) => facts.event === event);
  }

  #keep(level: LogLevel, facts: KeptLine["facts"]): void {
    this.lines.push({ level, facts });
  }
}

/** The database's clock, in microseconds. */
export async function databaseNow(replica: Replica): Promise<number> {
  const [row] = await replica.query<{ now: number }>("SELECT clock_timestamp() AS now");
  if (row === undefined) throw new TypeError("a clock has a time");
  return row.now;
}

export interface Expiry {
  readonly agent_id: string;
  readonly at: number;
  readonly incident_id: string | null;
}

/** Every expiry in the log, in order. */
export async function expiries(replica: Replica): Promise<Expiry[]> {
  return await replica.query<Expiry>(
    `SELECT agent_id, occurred_at AS at, incident_id FROM agent_transitions
     WHERE cause = 'lease_expired' ORDER BY revision`,
  );
}

/** Waits until so many leases have expired. */
export async function untilExpired(replica: Replica, count: number, withinMs?: number): Promise<Expiry[]> {
  return await until(
    `${count} leases have ended`,
    async () => {
      const all = await expiries(replica);
      return all.length >= count && all;
    },
    withinMs,
  );
}

/** The end of an agent's lease, by its row. */
export async function leaseEnd(replica: Replica, agentId: string): Promise<number> {
  const { leaseExpiresAt } = await replica.agents.get({ agentId });
  if (leaseExpiresAt === null) throw new TypeError(`${agentId} has no lease`);
  return leaseExpiresAt;
}

/** The first expiry of an agent. */
export async function untilOffline(replica: Replica, agentId: string, withinMs?: number): Promise<Transition> {
  return await until(
    `${agentId} is offline`,
    async () => (await replica.history(agentId)).find(({ cause }) => cause === "lease_expired"),
    withinMs,
  );
}

export interface ReplicaRow {
  readonly adopted_by: number | null;
  readonly until: number | null;
}

/** The row of a replica; undefined without one. */
export async function rowOf(replica: Replica, by: Replica): Promise<ReplicaRow | undefined> {
  const [row] = await by.query<ReplicaRow>(
    "SELECT adopted_by, no_lease_ends_before AS until FROM replicas WHERE id = $1",
    replica.number,
  );
  return row;
}

/** As if a replica had been silent for a while. */
export async function backdate(replica: Replica, by: Replica, ms: number): Promise<void> {
  await by.query(
    "UPDATE replicas SET seen_at = seen_at - $2::integer * interval '1 millisecond' WHERE id = $1",
    replica.number,
    ms,
  );
}

/** The time before which no lease of the fleet expires. */
export async function fleetGuard(by: Replica): Promise<number | null> {
  const [row] = await by.query<{ until: number | null }>("SELECT no_lease_ends_before AS until FROM fleet_state");
  return row?.until ?? null;
}

/** The version of each agent's liveness row, which changes with every write. */
export async function livenessVersions(by: Replica): Promise<unknown[]> {
  return await by.query("SELECT agent, xmin::text AS version FROM agent_liveness ORDER BY agent");
}

/** Agents that beat once at a replica, and then are silent. @returns the end of the last of their leases */
export async function beatOnce(replica: Replica, agentIds: readonly string[]): Promise<number> {
  const stream = replica.stream();
  await stream.say(...agentIds.map(alive));
  return Math.max(...(await Promise.all(agentIds.map((agentId) => leaseEnd(replica, agentId)))));
}

export async function untilThen(replica: Replica, moment: number): Promise<void> {
  await until("that moment has come", async () => (await databaseNow(replica)) >= moment);
}
