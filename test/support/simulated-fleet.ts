import { paceOf } from "../../src/domain/lease.ts";
import { judgeLeaseEnd } from "../../src/domain/status-machine.ts";
import { isolationTimesFor } from "../../src/liveness/membership.ts";
import { END_LEASE } from "../../src/storage/agent-change.ts";
import { commitGroup, readAgents } from "../../src/storage/change-group.ts";
import { claimAgents, renewLeases } from "../../src/storage/lease-queries.ts";
import { adoptedReplicas, adoptReplicas, refreshReplica, registerReplica } from "../../src/storage/replica-row.ts";
import { createTestDatabase } from "./cluster.ts";
import { openReplica, type Replica } from "./replica.ts";

export const PACE = paceOf(10_000);
export const HEARING = isolationTimesFor(PACE);
/** The interval at which a replica refreshes its row. */
export const REFRESH_MS = 1_000;

/**
 * Replicas that consist of their statements only, and a simulated time: a step moves all stored instants into
 * the past. So hours of outages take a moment, in an order that the test decides.
 */
export class SimulatedFleet implements AsyncDisposable {
  readonly #sql: Replica;
  readonly #undo: AsyncDisposableStack;
  #passedMs = 0;

  private constructor(sql: Replica, undo: AsyncDisposableStack) {
    this.#sql = sql;
    this.#undo = undo;
  }

  static async open(): Promise<SimulatedFleet> {
    await using undo = new AsyncDisposableStack();
    const { url } = undo.use(await createTestDatabase());
    const sql = undo.use(await openReplica(url, { started: false, listens: false }));
    // It only runs statements, and receives no heartbeats.
    await sql.query("DELETE FROM replicas WHERE id = $1", sql.number);
    return new SimulatedFleet(sql, undo.move());
  }

  get query(): Replica["query"] {
    return this.#sql.query;
  }

  get agents(): Replica["agents"] {
    return this.#sql.agents;
  }

  /** Agents of one claw without a heartbeat so far. */
  async seedAgents(count: number, prefix: string): Promise<string[]> {
    return await this.#sql.seedAgents(count, prefix, PACE.leaseMs, prefix);
  }

  /** Forgets all replicas and guards, and takes every lease away. */
  async clear(): Promise<void> {
    await this.query("DELETE FROM replicas");
    await this.query("UPDATE fleet_state SET no_lease_ends_before = NULL, brake_engaged_at = NULL");
    await this.query("DELETE FROM claw_incidents");
    await this.query(
      "UPDATE agent_liveness SET replica_id = NULL, held = false, instance = NULL, lease_expires_at = NULL",
    );
    await this.query("UPDATE agents SET status = 'offline'");
  }

  /** The simulated time in milliseconds: the database's clock plus all simulated steps. */
  async now(): Promise<number> {
    const [row] = await this.query<{ now: number }>("SELECT clock_timestamp() AS now");
    if (row === undefined) throw new TypeError("a clock has a time");
    return row.now / 1_000 + this.#passedMs;
  }

  /** A replica starts. @returns its number */
  async start(): Promise<number> {
    return await registerReplica(this.#sql.database, HEARING);
  }

  /** A time passes in which no replica sends a statement. */
  async pass(ms: number): Promise<void> {
    this.#passedMs += ms;
    await this.query(
      `WITH past AS (SELECT $1::integer * interval '1 millisecond' AS ms),
       r AS (UPDATE replicas SET seen_at = seen_at - ms, no_lease_ends_before = no_lease_ends_before - ms FROM past),
       f AS (UPDATE fleet_state SET no_lease_ends_before = no_lease_ends_before - ms FROM past),
       c AS (UPDATE claw_incidents SET began_at = began_at - ms, last_at = last_at - ms, ended_at = ended_at - ms FROM past),
       t AS (UPDATE agent_transitions SET occurred_at = occurred_at - ms FROM past)
       UPDATE agent_liveness SET last_heartbeat = last_heartbeat - ms, lease_expires_at = lease_expires_at - ms FROM past`,
      Math.round(ms),
    );
  }

  /** The periodic work of a replica that is up. @returns whether it notices that it was isolated */
  async listen(replica: number): Promise<boolean> {
    const { database } = this.#sql;
    const isolated = await refreshReplica(database, replica, HEARING);
    await adoptReplicas(database, replica, HEARING.graceMs);
    await adoptedReplicas(database, replica);
    return isolated;
  }

  /**
   * A time passes in which these replicas are up and try to expire every ended lease. @returns the expired
   * agents
   */
  async listening(ms: number, ...replicas: readonly number[]): Promise<string[]> {
    const expired: string[] = [];
    for (let left = ms; left > 0; left -= REFRESH_MS) {
      await this.pass(Math.min(left, REFRESH_MS));
      for (const replica of replicas) await this.listen(replica);
      expired.push(...(await this.endLeases()));
    }
    return expired;
  }

  async claim(replica: number, agentIds: readonly string[]): Promise<void> {
    const claims = agentIds.map((agentId) => ({
      agentId,
      clawIdentifier: undefined,
      instance: undefined,
      generation: 0n,
      fresh: true,
      resumes: false,
    }));
    await claimAgents(this.#sql.database, replica, claims, PACE.leaseMs);
  }

  async renew(agentIds: readonly string[], leaseMs: number = PACE.leaseMs): Promise<void> {
    const agents = await readAgents(this.#sql.database.commits, this.#sql.database.clock, { ids: [], agentIds });
    const renewals = agents.map(({ id, epoch, revision }) => ({ id, epoch, revision, leaseMs, held: false }));
    await renewLeases(this.#sql.database, renewals);
  }

  /** The agents send their first heartbeat to a replica. */
  async hear(replica: number, agentIds: readonly string[]): Promise<void> {
    await this.claim(replica, agentIds);
    await this.renew(agentIds);
  }

  /**
   * Tries to expire every lease that has ended by its row, whichever replica watches it. @returns the agents
   * that are offline now
   */
  async endLeases(): Promise<string[]> {
    const { commits, clock } = this.#sql.database;
    const overdue = await this.query<{ agent_id: string }>(
      "SELECT agent_id FROM agent_states WHERE lease_expires_at <= clock_timestamp() ORDER BY id",
    );
    if (overdue.length === 0) return [];
    const agents = await readAgents(commits, clock, { ids: [], agentIds: overdue.map((row) => row.agent_id) });
    const members = agents.flatMap((agent) => {
      const status = judgeLeaseEnd(agent);
      if (status === undefined) return [];
      const write = {
        kind: "update",
        agent,
        cause: "lease_expired",
        status,
        lease: END_LEASE,
        held: false,
        leaseEnded: true,
      };
      return [
        {
          write: { ...write, kind: "update", cause: "lease_expired" } as const,
          actor: "server",
          request: undefined,
          deadline: undefined,
        },
      ];
    });
    const client = await commits.connect();
    try {
      const outcomes = await commitGroup(client, clock, 0, members, { perSecond: 100, perClaw: 50 });
      return members.flatMap(({ write }, place) =>
        outcomes[place]?.kind === "committed" ? [write.agent.agentId] : [],
      );
    } finally {
      client.release();
    }
  }

  /** The replica of an agent's row, and the replica that has adopted that one. */
  async watcherOf(agentId: string): Promise<{ replica: number | null; adopter: number | null; guard: number | null }> {
    const [row] = await this.query<{ replica: number | null; adopter: number | null; guard: number | null }>(
      `SELECT l.replica_id AS replica, r.adopted_by AS adopter, r.no_lease_ends_before AS guard
       FROM agents a JOIN agent_liveness l ON l.agent = a.id LEFT JOIN replicas r ON r.id = l.replica_id WHERE a.agent_id = $1`,
      agentId,
    );
    if (row === undefined) throw new Error(`there is no agent ${agentId}`);
    return row;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}
