import { connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { SessionListener, SessionOptions } from "../../src/domain/claw-session.ts";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import type { Beat } from "../../src/domain/status-machine.ts";
import { Liveness } from "../../src/liveness/liveness.ts";
import type { StreamSession } from "../../src/liveness/stream-session.ts";
import { createAgentDirectory } from "../../src/storage/agent-directory.ts";
import { Committer } from "../../src/storage/committer.ts";
import { type Database, openDatabase } from "../../src/storage/database.ts";
import { adoptReplicas, refreshReplica, registerReplica } from "../../src/storage/replica-row.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";
import { createUserDirectory } from "../../src/storage/user-directory.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { type ReceivedResult, resultsIn } from "../support/replica-stream.ts";
import { by } from "../support/storage.ts";
import { PATIENCE } from "../support/until.ts";

const SILENT = { info() {}, warn() {}, error() {}, debug() {} };
const HEARING = { isolatedAfterMs: 60_000, graceMs: 1_000 };
const PACE = { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 };

/** The storage and the liveness of one replica. It reads the log of transitions only on request of the test. */
class Replica {
  readonly id: number;
  readonly database: Database;
  readonly committer: Committer;
  readonly liveness: Liveness;
  readonly agents: ReturnType<typeof createAgentDirectory>;
  readonly #log: TransitionLog;
  readonly #users: ReturnType<typeof createUserDirectory>;
  #heard: bigint;

  private constructor(id: number, database: Database, heard: bigint) {
    this.id = id;
    this.database = database;
    this.committer = new Committer(database, id, () => undefined);
    this.liveness = new Liveness({ database, committer: this.committer, replica: id, pace: PACE, log: SILENT });
    const { committer } = this;
    const onLease = this.liveness.onCreated.bind(this.liveness);
    this.agents = createAgentDirectory({ database, committer, firstLeaseMs: 60_000, onLease });
    this.#users = createUserDirectory({ database, committer, firstLeaseMs: 60_000, onLease });
    this.#log = new TransitionLog(database.feed);
    this.#heard = heard;
  }

  static async open(url: string): Promise<Replica> {
    const database = openDatabase({ url, onIdleError: () => undefined });
    const heard = await new TransitionLog(database.feed).newest();
    return new Replica(await registerReplica(database, HEARING), database, heard);
  }

  async create(agentId: string, clawIdentifier = "claw"): Promise<void> {
    const user = { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier } };
    await this.#users.create(user, by());
    await this.hear();
  }

  /** Passes on the transitions committed since the last call. */
  async hear(): Promise<void> {
    const { transitions } = await this.#log.read(this.#heard, 1_000);
    for (const transition of transitions) this.liveness.onTransition(transition);
    this.#heard = transitions.at(-1)?.revision ?? this.#heard;
  }

  open(options: Partial<SessionOptions> = {}): Stream {
    const all = { clawIdentifier: undefined, instanceId: undefined, generation: 0n, ...options };
    return new Stream((listener) => this.liveness.openSession(all, listener));
  }

  async close(): Promise<void> {
    await this.liveness.close();
    await this.committer.close();
    await this.database.close();
  }
}

/** A path to the database that the test can close. */
class Gate {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;

  private constructor(url: string, server: Server, sockets: Set<Socket>) {
    this.url = url;
    this.#server = server;
    this.#sockets = sockets;
  }

  static async to(url: string): Promise<Gate> {
    const target = new URL(url);
    const { hostname, port } = target;
    const sockets = new Set<Socket>();
    const server = createServer((inner) => {
      const outer = connect(Number(port || 5432), hostname);
      for (const socket of [inner, outer]) {
        sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => {
          sockets.delete(socket);
          inner.destroy();
          outer.destroy();
        });
      }
      inner.pipe(outer).pipe(inner);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("a socket has a port");
    target.hostname = "127.0.0.1";
    target.port = String(address.port);
    return new Gate(target.href, server, sockets);
  }

  /** Closes open connections, and accepts none. */
  shut(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.shut();
  }
}

/** A heartbeat stream, and the responses it received. */
class Stream {
  readonly session: StreamSession;
  readonly results: ReceivedResult[] = [];
  acknowledged = 0n;
  #sequence = 0n;

  constructor(open: (listener: SessionListener) => StreamSession) {
    this.session = open({ onOutput: () => this.#read(), onCapacity: () => undefined });
  }

  send(...beats: ParsedBeat[]): bigint {
    this.#sequence += 1n;
    this.session.submit(this.#sequence, beats);
    return this.#sequence;
  }

  /** Sends, and waits for the acknowledgement. @returns the results of this message */
  async beat(...beats: ParsedBeat[]): Promise<ReceivedResult[]> {
    const sequence = this.send(...beats);
    await vi.waitFor(() => expect(this.acknowledged).toBeGreaterThanOrEqual(sequence), PATIENCE);
    return this.results.filter((result) => result.sequence === sequence);
  }

  reasons(): (string | undefined)[] {
    return this.results.map(({ refusal }) => refusal?.reason);
  }

  #read(): void {
    for (let output = this.session.take(); output !== undefined; output = this.session.take()) {
      this.acknowledged = output.acknowledgedSequence;
      this.results.push(...resultsIn(output));
    }
  }
}

function says(agentId: string, report?: Beat["report"], knownRevision?: bigint): ParsedBeat {
  return { agentId, leaving: false, beat: { report, knownRevision } };
}

function leaves(agentId: string): ParsedBeat {
  return { agentId, leaving: true, beat: { report: undefined, knownRevision: undefined } };
}

let testDatabase: TestDatabase;
let one: Replica;
let two: Replica;
let agents = 0;
const streams: Stream[] = [];

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  one = await Replica.open(testDatabase.url);
  two = await Replica.open(testDatabase.url);
});

afterEach(() => {
  for (const { session } of streams.splice(0)) session.close();
});

afterAll(async () => {
  await Promise.all([one.close(), two.close()]);
  await testDatabase.drop();
});

async function newAgent(on: Replica = one, clawIdentifier = "claw"): Promise<string> {
  agents += 1;
  const agentId = `agent-${agents}`;
  await on.create(agentId, clawIdentifier);
  return agentId;
}

function open(on: Replica, options?: Partial<SessionOptions>): Stream {
  const stream = on.open(options);
  streams.push(stream);
  return stream;
}

async function stateOf(agentId: string) {
  return await one.agents.get({ agentId });
}

/** Locks an agent's row until the returned function is called. */
async function lock(agentId: string): Promise<() => Promise<void>> {
  const client = await one.database.feed.connect();
  await client.query("BEGIN");
  await client.query(
    "SELECT FROM agent_liveness l JOIN agents a ON a.id = l.agent WHERE a.agent_id = $1 FOR UPDATE OF l",
    [agentId],
  );
  return async () => {
    await client.query("COMMIT");
    client.release();
  };
}

describe("a change by a service", () => {
  it("is sent to the stream although a beat without a status was applied before", async () => {
    const agentId = await newAgent();
    const stream = open(one);
    await stream.beat(says(agentId, "idle"));
    const { revision } = await two.agents.updateStatus(agentId, { status: "busy", holdMs: undefined }, undefined, by());
    await stream.beat(says(agentId));
    await one.hear();
    await vi.waitFor(
      () => expect(stream.results.at(-1)).toMatchObject({ agentId, status: "busy", revision }),
      PATIENCE,
    );
  });

  it("is sent to the stream when the same replica moved the agent", async () => {
    const agentId = await newAgent();
    const stream = open(one, { clawIdentifier: "claw" });
    await stream.beat(says(agentId, "idle"));
    await one.agents.move(agentId, "another claw", by());
    await one.hear();
    await vi.waitFor(() => expect(stream.reasons()).toContain("WRONG_CLAW"), PATIENCE);
  });
});

it("a pending beat is not applied to an agent that was moved meanwhile", async () => {
  const agentId = await newAgent();
  const stream = open(one, { clawIdentifier: "claw" });
  await stream.beat(says(agentId, "idle"));
  // It waits 100 ms for other beats.
  const sequence = stream.send(says(agentId, "idle"));
  const moved = await one.agents.move(agentId, "another claw", by());
  await vi.waitFor(() => expect(stream.acknowledged).toBe(sequence), PATIENCE);
  expect(stream.results.filter((result) => result.sequence === sequence)).toMatchObject([
    { refusal: { reason: "WRONG_CLAW" } },
  ]);
  expect((await stateOf(agentId)).lastHeartbeat).toBe(moved.lastHeartbeat);
});

describe("a stream whose agent was taken over by another stream, which then ended", () => {
  /** No session holds X, and the stream that held it has not received this change yet. */
  async function bereaved(): Promise<{ agentId: string; stream: Stream }> {
    const agentId = await newAgent();
    const stream = open(one);
    await stream.beat(says(agentId, "idle"));
    const other = open(two);
    await other.beat(says(agentId, "idle"));
    other.session.close();
    await vi.waitFor(async () => expect((await stateOf(agentId)).held).toBe(false), PATIENCE);
    return { agentId, stream };
  }

  it("gets it back with its next beat", async () => {
    const { agentId, stream } = await bereaved();
    await stream.beat(says(agentId, "busy"));
    expect(await stateOf(agentId)).toMatchObject({ status: "busy", held: true });
    expect(stream.reasons().filter((reason) => reason !== undefined)).toEqual([]);
  });

  it("gets it back by two beats in their order, the first of which would only have renewed the lease", async () => {
    const { agentId, stream } = await bereaved();
    await stream.beat(says(agentId, "idle"), says(agentId, "busy"));
    expect(await stateOf(agentId)).toMatchObject({ status: "busy", held: true });
    expect(stream.reasons().filter((reason) => reason !== undefined)).toEqual([]);
  });

  it("gets it back by two beats, however busy the replica is between them", async () => {
    const { agentId, stream } = await bereaved();
    const [first, second] = [await newAgent(), await newAgent()];
    await stream.beat(says(first, "idle"), says(second, "idle"));
    const unlockFirst = await lock(first);
    const unlockSecond = await lock(second);
    stream.send(says(agentId, "on_call"), says(agentId, "busy"), says(first, "busy"));
    // The group with both beats is under way, and waits for the first lock; the next one waits for the second.
    await vi.waitFor(() => expect(one.committer.waiting).toBe(0), PATIENCE);
    stream.send(says(second, "busy"));
    await vi.waitFor(() => expect(one.committer.waiting).toBe(1), PATIENCE);
    await unlockFirst();
    await vi.waitFor(async () => expect((await stateOf(agentId)).held).toBe(true), PATIENCE);
    await unlockSecond();
    await stream.beat(says(agentId, "busy"));
    expect(stream.reasons().filter((reason) => reason !== undefined)).toEqual([]);
    expect(await stateOf(agentId)).toMatchObject({ status: "busy", held: true });
  });
});

describe("a claim that completes after its stream ended", () => {
  it("holds no agent, and the lease is watched", async () => {
    const agentId = await newAgent(two);
    const before = one.liveness.statistics().agents;
    const { epoch } = await stateOf(agentId);
    const stream = open(one);
    stream.send(says(agentId, "idle"));
    // The claim is under way by then.
    await new Promise((resolve) => setImmediate(resolve));
    stream.session.close();
    await vi.waitFor(async () => expect((await stateOf(agentId)).epoch).toBeGreaterThan(epoch), PATIENCE);
    await vi.waitFor(async () => expect((await stateOf(agentId)).held).toBe(false), PATIENCE);
    expect((await stateOf(agentId)).replicaId).toBe(one.id);
    await vi.waitFor(() => expect(one.liveness.statistics().agents).toBe(before + 1), PATIENCE);
  });
});

it("a stream keeps its agent from the streams it superseded, also when its replica counted as failed", async () => {
  const agentId = await newAgent();
  const former = open(one);
  await former.beat(says(agentId, "idle"));
  const present = open(one);
  await present.beat(says(agentId, "idle"));
  await one.database.feed.query("UPDATE replicas SET seen_at = '-infinity' WHERE id = $1", [one.id]);
  await adoptReplicas(two.database, two.id, HEARING.graceMs);
  await refreshReplica(one.database, one.id, HEARING);
  await present.beat(says(agentId, "idle"));
  expect(await former.beat(says(agentId, "busy"))).toMatchObject([{ refusal: { reason: "SESSION_SUPERSEDED" } }]);
  expect(await present.beat(says(agentId, "on_call"))).toMatchObject([{ refusal: null, status: "on_call" }]);
});

describe("a replica keeps no state of an agent", () => {
  it("that said goodbye before its stream ended", async () => {
    const before = one.liveness.statistics().agents;
    const agentId = await newAgent();
    const stream = open(one);
    await stream.beat(says(agentId, "idle"));
    await stream.beat(leaves(agentId));
    await one.hear();
    stream.session.close();
    await vi.waitFor(() => expect(one.liveness.statistics().agents).toBe(before), PATIENCE);
  });

  it("that a service put offline during a unary heartbeat, and that stopped", async () => {
    // If the beat is committed first, the agent stays offline, and another one is tried.
    for (let status = "offline"; status === "offline"; ) {
      const before = one.liveness.statistics().agents;
      const agentId = await newAgent();
      const beat = one.liveness.beat([says(agentId)], { clawIdentifier: undefined, leaseMs: 30_000 });
      await two.agents.updateStatus(agentId, { status: "offline", holdMs: undefined }, undefined, by());
      await one.hear();
      await beat;
      status = (await stateOf(agentId)).status;
      if (status === "offline") continue;
      // It is back online, and watched by the replica that received the beat.
      expect(status).toBe("idle");
      expect(one.liveness.statistics().agents).toBe(before + 1);
    }
  });
});

it("a replica can stop while the database is away", async () => {
  await using gate = await Gate.to(testDatabase.url);
  const replica = await Replica.open(gate.url);
  await replica.create("agent of a lonely replica");
  const stream = replica.open();
  await stream.beat(says("agent of a lonely replica", "idle"));
  gate.shut();
  stream.send(says("agent of a lonely replica", "busy"));
  await replica.liveness.close();
  await replica.committer.close();
  await replica.database.close();
}, 30_000);
