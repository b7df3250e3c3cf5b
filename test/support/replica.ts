import type { AgentStatus } from "../../common/contract/enum-names.ts";
import type { Logger } from "../../common/logging/logger.ts";
import type { Agent, Transition } from "../../src/domain/agent.ts";
import { paceFor } from "../../src/domain/lease.ts";
import { Liveness } from "../../src/liveness/liveness.ts";
import { isolationTimesFor } from "../../src/liveness/membership.ts";
import { createAgentDirectory } from "../../src/storage/agent-directory.ts";
import type { OfferLimits } from "../../src/storage/change-group.ts";
import { Committer } from "../../src/storage/committer.ts";
import { openDatabase } from "../../src/storage/database.ts";
import { registerReplica } from "../../src/storage/replica-row.ts";
import { createUserDirectory } from "../../src/storage/user-directory.ts";
import { createWakeDirectory } from "../../src/storage/wake-directory.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";
import { createWatching } from "../../src/watch/watching.ts";
import { Gate } from "./gate.ts";
import { TestStream } from "./replica-stream.ts";
import { until } from "./until.ts";

export interface ReplicaOptions {
  /** Default: 10 s, with a lease of 30 s, which ends after every test. */
  readonly intervalMs?: number;
  /** The target heartbeats per second. Default: a million. */
  readonly heartbeatsPerSecond?: number;
  readonly firstLeaseMs?: number;
  /** False: it never refreshes its row, watches no lease and recovers no agent. */
  readonly started?: boolean;
  /** False: it does not read the log of transitions, like a replica with a slow reader. */
  readonly listens?: boolean;
  /** False: it neither notifies other replicas of its commits nor wakes its own feed. */
  readonly notifies?: boolean;
  /** Default: those of the settings. */
  readonly offerLimits?: OfferLimits;
  /** Default: a silent logger. */
  readonly log?: Logger;
}

const LOG: Logger = { info() {}, warn() {}, error() {}, debug() {} };

/** A replica without its listeners: storage, liveness and the reader of the log, behind a gate. */
export async function openReplica(url: string, options: ReplicaOptions = {}) {
  const { intervalMs = 10_000, heartbeatsPerSecond = 1_000_000, firstLeaseMs = 60_000 } = options;
  const { started = true, listens = true, log = LOG, offerLimits, notifies = true } = options;
  await using undo = new AsyncDisposableStack();
  const metrics = new Metrics();
  const database = openDatabase({ url, metrics, onIdleError: () => undefined });
  undo.defer(() => database.close());
  const gate = new Gate(database);
  const pace = { shortestIntervalMs: intervalMs, heartbeatsPerSecond };
  const number = await registerReplica(database, isolationTimesFor(paceFor(0, pace)));
  const watching = undo.use(createWatching({ database, log: LOG, metrics }));
  const committer = new Committer(
    database,
    number,
    () => {
      if (notifies) watching.notifyCommitted();
    },
    { metrics, offerLimits },
  );
  undo.defer(() => committer.close());
  let cutOff = false;
  const liveness = new Liveness({
    database,
    committer,
    replica: number,
    pace,
    offerLimits,
    log,
    metrics,
    onCutOff: () => {
      cutOff = true;
    },
    onBack: () => {
      cutOff = false;
    },
  });
  undo.defer(() => liveness.close());
  const directory = { database, committer, firstLeaseMs, onLease: liveness.onCreated.bind(liveness) };
  const users = createUserDirectory(directory);
  const agents = createAgentDirectory(directory);
  const wakes = createWakeDirectory({ database, committer });
  let heard = 0n;
  watching.feed.subscribe({
    onTransitions(transitions) {
      for (const transition of transitions) {
        if (listens) liveness.onTransition(transition);
        heard = transition.revision;
      }
    },
    onGap: () => void liveness.onGap(),
    onRestart: () => liveness.onRestart(),
  });
  await watching.start();
  if (started) await liveness.start();
  const query = async <Row extends object>(sql: string, ...values: readonly unknown[]): Promise<Row[]> =>
    (await database.feed.query<Row>(sql, [...values])).rows;
  const everything = undo.move();

  return {
    number,
    url,
    database,
    gate,
    committer,
    liveness,
    metrics,
    watches: watching.watches,
    users,
    agents,
    wakes,
    following: watching.wakes,
    query,
    /** Whether it reports that it cannot write. */
    get cutOff(): boolean {
      return cutOff;
    },

    /** An agent with a user of its own. */
    async createAgent(agentId: string, clawIdentifier = "claw-1"): Promise<Agent> {
      const user = { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier } };
      const { agent } = await users.create(user, { actor: "user:test", request: undefined });
      if (agent === undefined) throw new TypeError("an agent was asked for");
      return agent;
    },

    /**
     * Very many agents, as if they had been created long ago; their leases end `leaseMs` from now, and no
     * replica watches them.
     */
    async seedAgents(count: number, prefix: string, leaseMs = 600_000, clawIdentifier = "claw-1"): Promise<string[]> {
      await query(
        `WITH who AS (SELECT $2 || n AS name FROM generate_series(1, $1::integer) n),
         u AS (INSERT INTO users (username) SELECT name FROM who RETURNING id, username),
         a AS (
           INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
           SELECT u.id, u.username, $4, clock_timestamp(), clock_timestamp(), c.revision FROM u, revision_counter c
           RETURNING id, revision
         )
         INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
         SELECT id, revision, nextval('agent_epochs'), clock_timestamp() + $3::integer * interval '1 millisecond' FROM a`,
        count,
        prefix,
        leaseMs,
        clawIdentifier,
      );
      return Array.from({ length: count }, (_, index) => `${prefix}${index + 1}`);
    },

    stream(
      options: {
        clawIdentifier?: string;
        instanceId?: string;
        generation?: bigint;
        takesWakes?: boolean;
        peer?: string;
      } = {},
    ): TestStream {
      const { clawIdentifier, instanceId, generation = 0n, takesWakes = false, peer } = options;
      return new TestStream((listener) =>
        liveness.openSession({ clawIdentifier, instanceId, generation, takesWakes, peer }, listener),
      );
    },

    /** Ends a lease just now in the row. The watching replica expects a later end until it reads the row. */
    async backdateLease(agentId: string): Promise<void> {
      await query(
        `UPDATE agent_liveness SET lease_expires_at = clock_timestamp() - interval '1 millisecond'
         WHERE agent = (SELECT id FROM agents WHERE agent_id = $1)`,
        agentId,
      );
    },

    /** Has this replica watch the agent's lease as it is. */
    async watchLease(agentId: string): Promise<void> {
      liveness.onCreated(await agents.get({ agentId }));
    },

    /** Resolves when the agent has this status. */
    untilStatus: (agentId: string, status: AgentStatus, withinMs?: number): Promise<Agent> =>
      until(
        `${agentId} is ${status}`,
        async () => {
          const agent = await agents.get({ agentId });
          return agent.status === status && agent;
        },
        withinMs,
      ),

    /** Resolves when this replica has read every transition that is committed by now. */
    async untilHeard(): Promise<void> {
      const [counter] = await query<{ revision: bigint }>("SELECT revision FROM revision_counter");
      const [last] = await query<{ revision: bigint }>(
        "SELECT coalesce(max(revision), 0) AS revision FROM agent_transitions WHERE revision <= $1",
        counter?.revision,
      );
      await until("the log is read", () => heard >= (last?.revision ?? 0n));
    },

    /** The transitions of an agent, from its creation on. */
    async history(agentId: string): Promise<readonly Transition[]> {
      const { rows } = await agents.transitions({
        agentId,
        afterRevision: 0n,
        newestFirst: false,
        after: undefined,
        upTo: undefined,
        limit: 1_000,
      });
      return rows;
    },

    /** A change by a service without a request_id. */
    by: { actor: "service:calendar", request: undefined },

    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

export type Replica = Awaited<ReturnType<typeof openReplica>>;

/** The transitions of an agent after its creation: cause, and status after it. */
export async function storyOf(replica: Replica, agentId: string): Promise<string[]> {
  const [, ...after] = await replica.history(agentId);
  return after.map(({ cause, toStatus }) => `${cause}: ${toStatus}`);
}
