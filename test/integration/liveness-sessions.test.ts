import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let one: Replica;
let other: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
});

afterAll(async () => {
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };

function free(agentId: string): Promise<true> {
  return until("nobody holds the agent", async () => !(await one.agents.get({ agentId })).held);
}

describe.each([
  ["the same", () => one],
  ["another", () => other],
])("a takeover by a stream at %s replica", (where, at) => {
  test("gets a higher epoch; the superseded stream is notified, and its beats do not change the agent", async () => {
    const agentId = `taken at ${where}`;
    await one.createAgent(agentId);
    using loser = one.stream();
    await loser.say(reports(agentId, "busy"));
    const before = await one.agents.get({ agentId });
    using winner = at().stream();
    expect(await winner.say(alive(agentId))).toMatchObject([{ status: "busy", revision: before.revision }]);
    expect((await one.agents.get({ agentId })).epoch).toBeGreaterThan(before.epoch);

    for (const beat of [alive(agentId), reports(agentId, "idle"), goodbye(agentId)]) {
      expect(await loser.say(beat)).toMatchObject([SUPERSEDED]);
    }
    if (at() === one) expect(loser.unasked(agentId)).toMatchObject([SUPERSEDED]);
    expect(await winner.say(alive(agentId))).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy"]);
  });

  test("does not affect other agents of the superseded stream", async () => {
    const [kept, taken] = [`kept at ${where}`, `lost at ${where}`];
    await Promise.all([one.createAgent(kept), one.createAgent(taken)]);
    using loser = one.stream();
    await loser.say(alive(kept), alive(taken));
    using winner = at().stream();
    await winner.say(alive(taken));
    expect(await loser.say(alive(taken), reports(kept, "busy"), alive(taken))).toMatchObject([
      { ...SUPERSEDED, beatIndex: 0 },
      { agentId: kept, status: "busy", refusal: null, beatIndex: 1 },
      { ...SUPERSEDED, beatIndex: 2 },
    ]);
  });

  test("ends when no stream holds the agent: the next beat of any stream claims it", async () => {
    const agentId = `given back at ${where}`;
    await one.createAgent(agentId);
    using loser = one.stream();
    await loser.say(alive(agentId));
    using winner = at().stream();
    await winner.say(alive(agentId));
    expect(await loser.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    winner.close();
    await free(agentId);
    expect(await loser.say(reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await loser.say(alive(agentId))).toEqual([]);
  });

  test("follows the generation when both streams are of one claw process, in either order", async () => {
    const agentId = `generations at ${where}`;
    await one.createAgent(agentId);
    const instanceId = "one claw process";
    using second = one.stream({ instanceId, generation: 2n });
    await second.say(alive(agentId));
    using first = at().stream({ instanceId, generation: 1n });
    expect(await first.say(reports(agentId, "busy"))).toMatchObject([SUPERSEDED]);
    using third = at().stream({ instanceId, generation: 3n });
    expect(await third.say(reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await second.say(alive(agentId))).toMatchObject([SUPERSEDED]);
  });
});

test("a unary heartbeat holds no session: it supersedes no stream, and no stream supersedes it", async () => {
  const agentId = "beaten from aside";
  await one.createAgent(agentId);
  const unary = (at: Replica, beat: ReturnType<typeof alive>, leaseMs = 30_000, clawIdentifier?: string) =>
    at.liveness.beat([beat], { clawIdentifier, leaseMs });
  expect(await unary(other, reports(agentId, "busy"))).toMatchObject([{ status: "busy", refusal: null }]);
  expect(await one.agents.get({ agentId })).toMatchObject({ held: false });

  using stream = one.stream();
  await stream.say(alive(agentId));
  const held = await one.agents.get({ agentId });
  for (const at of [one, other]) {
    expect(await unary(at, reports(agentId, "idle"), 60_000)).toMatchObject([{ refusal: null }]);
    expect(await one.agents.get({ agentId })).toMatchObject({ epoch: held.epoch, held: true, status: "idle" });
    expect((await stream.say(reports(agentId, "busy"))).every(({ refusal }) => refusal === null)).toBe(true);
  }
  // The lease of the newest beat counts, also when it is the shorter one.
  const { leaseExpiresAt, lastHeartbeat } = await one.agents.get({ agentId });
  expect(Math.round(((leaseExpiresAt ?? 0) - (lastHeartbeat ?? 0)) / 1_000)).toBe(30_000);
  expect(await unary(other, alive(agentId), 1_000, "claw-2")).toMatchObject([
    { refusal: { reason: "WRONG_CLAW" }, status: null },
  ]);
});

describe("a goodbye", () => {
  test("puts the agent offline at once, ends its lease and frees it", async () => {
    const agentId = "leaves";
    await one.createAgent(agentId);
    using stream = one.stream();
    expect(await stream.say(reports(agentId, "busy"), goodbye(agentId))).toMatchObject([
      { status: "busy" },
      { status: "offline", refusal: null },
    ]);
    expect(await one.agents.get({ agentId })).toMatchObject({ status: "offline", leaseExpiresAt: null, held: false });
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "goodbye: offline"]);
    // The stream may continue with the agent.
    expect(await stream.say(alive(agentId))).toMatchObject([{ status: "idle" }]);
    expect(await one.agents.get({ agentId })).toMatchObject({ status: "idle", held: true });
  });

  test("is never held off, and may be the first beat of a stream", async () => {
    const agentId = "leaves against a hold";
    await one.createAgent(agentId);
    await one.agents.updateStatus(agentId, { status: "on_call", holdMs: 3_600_000 }, undefined, one.by);
    using stream = one.stream();
    expect(await stream.say(reports(agentId, "idle"))).toMatchObject([
      { refusal: { reason: "REPORT_OUTDATED" }, status: "on_call" },
    ]);
    using second = other.stream();
    expect(await second.say(goodbye(agentId))).toMatchObject([{ status: "offline", refusal: null }]);
    expect(await second.say(goodbye(agentId))).toMatchObject([{ status: "offline", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["service: on_call", "goodbye: offline"]);
  });

  test.each([
    "before",
    "after",
  ])("leaves no state of the agent in the replica: the stream ends %s the log shows it", async (when) => {
    const agentId = `gone for good ${when}`;
    await other.createAgent(agentId);
    const before = one.liveness.statistics();
    const stream = one.stream();
    await stream.say(alive(agentId));
    expect(one.liveness.statistics()).toMatchObject({ agents: before.agents + 1, sessions: before.sessions + 1 });
    await stream.say(goodbye(agentId));
    if (when === "after") await one.untilHeard();
    stream.close();
    await one.untilHeard();
    expect(one.liveness.statistics()).toEqual(before);
  });

  test("by a unary heartbeat leaves no state of the agent in the replica", async () => {
    const agentId = "passes by";
    await other.createAgent(agentId);
    const before = one.liveness.statistics();
    for (const beat of [alive(agentId), goodbye(agentId), alive(agentId), reports(agentId, "busy"), goodbye(agentId)]) {
      await one.liveness.beat([beat], { clawIdentifier: undefined, leaseMs: 30_000 });
    }
    await one.untilHeard();
    await until("it is forgotten", () => one.liveness.statistics().agents === before.agents);
  });
});

describe("the end of a stream", () => {
  test("is not a goodbye: the lease continues, and the agent returns elsewhere with the same status", async () => {
    const agentId = "reconnects";
    await one.createAgent(agentId);
    let { leaseExpiresAt } = await one.agents.get({ agentId });
    for (const at of [one, other, other, one]) {
      const stream = at.stream();
      await stream.say(reports(agentId, "busy"));
      stream.close();
      await free(agentId);
      const agent = await one.agents.get({ agentId });
      expect(agent.status).toBe("busy");
      expect(agent.leaseExpiresAt).not.toBe(leaseExpiresAt);
      ({ leaseExpiresAt } = agent);
    }
    expect(await storyOf(one, agentId)).toEqual(["report: busy"]);
  });

  test.each([
    ["renewal", alive, "renew-leases"],
    ["report", (agentId: string) => reports(agentId, "busy"), "commit-changes"],
  ] as const)("frees the agent for other streams, also when a %s of it is written only then", async (what, beat, statement) => {
    const agentId = `ends before its ${what}`;
    await one.createAgent(agentId);
    const former = other.stream();
    await former.say(alive(agentId));
    using stream = one.stream();
    await stream.say(alive(agentId));
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);

    using hold = one.gate.hold(statement);
    stream.send(beat(agentId));
    await hold.arrived();
    const before = await one.agents.get({ agentId });
    stream.close();
    await free(agentId);
    hold.release();
    await until("it is written", async () => {
      const { lastHeartbeat } = await one.agents.get({ agentId });
      return (lastHeartbeat ?? 0) > (before.lastHeartbeat ?? 0);
    });
    await free(agentId);
    expect((await former.say(alive(agentId))).every(({ refusal }) => refusal === null)).toBe(true);
    former.close();
  });

  test("by a half-close comes after all pending responses", async () => {
    const agentId = "half-closed";
    await one.createAgent(agentId);
    using stream = one.stream();
    stream.send(reports(agentId, "busy"), alive(agentId));
    const sequence = stream.send(alive(agentId));
    stream.session.finish();
    await until("it ends", () => stream.ended);
    expect(stream.acknowledged).toBe(sequence);
    expect(stream.results).toMatchObject([{ status: "busy", sequence: 1n }]);
    await free(agentId);
    expect(await one.agents.get({ agentId })).toMatchObject({ status: "busy" });
  });
});

describe("the beats of a message", () => {
  test("are applied in order when they belong to one agent", async () => {
    const agentId = "in order";
    await one.createAgent(agentId);
    using stream = one.stream();
    const results = await stream.say(
      alive(agentId),
      reports(agentId, "busy"),
      alive(agentId),
      reports(agentId, "busy"),
      reports(agentId, "idle"),
      reports(agentId, { exhausted: { reason: "billing", retryAfterMs: 1_000_000 } }),
      reports(agentId, "on_call"),
      goodbye(agentId),
      alive(agentId),
      reports(agentId, "busy"),
    );
    expect(await storyOf(one, agentId)).toEqual([
      "report: busy",
      "report: idle",
      "report: exhausted",
      "report: on_call",
      "goodbye: offline",
      "heartbeat: idle",
      "report: busy",
    ]);
    expect(results.at(-1)).toMatchObject({ status: "busy", beatIndex: 9 });
    expect(results.every(({ refusal }) => refusal === null)).toBe(true);
  });

  test("are judged individually: an invalid one does not affect the others", async () => {
    await one.createAgent("a good one");
    await one.createAgent("elsewhere", "claw-2");
    using stream = one.stream({ clawIdentifier: "claw-1" });
    const results = await stream.say(
      alive("there is none"),
      alive("elsewhere"),
      reports("a good one", "busy"),
      alive("there is none"),
    );
    expect(results).toHaveLength(4);
    expect(results).toMatchObject([
      { refusal: { reason: "AGENT_NOT_FOUND" }, status: null },
      { refusal: { reason: "WRONG_CLAW" }, status: null, revision: null },
      { refusal: null, status: "busy" },
      { refusal: { reason: "AGENT_NOT_FOUND" } },
    ]);
    // An agent that is created later is found.
    await one.createAgent("there is none");
    expect(await stream.say(alive("there is none"))).toMatchObject([{ status: "idle", refusal: null }]);
  });

  test("renew many leases in one statement", async () => {
    const agentIds = await one.seedAgents(1_000, "batch-");
    using stream = one.stream();
    const introduced = await stream.say(...agentIds.map(alive));
    expect(introduced).toHaveLength(1_000);
    using hold = one.gate.hold("renew-leases", "after");
    const sequence = stream.send(...agentIds.map(alive));
    await hold.arrived();
    const [renewed] = await one.query<{ beats: bigint }>(
      `SELECT count(*) AS beats FROM agent_liveness l JOIN agents a ON a.id = l.agent
       WHERE a.agent_id LIKE 'batch-%' AND l.lease_expires_at > clock_timestamp() + interval '29 seconds'`,
    );
    expect(renewed?.beats).toBe(1_000n);
    expect(hold.count).toBe(1);
    expect(stream.acknowledged).toBe(sequence - 1n);
    hold.release();
    await stream.acknowledgedUpTo(sequence);
    expect(stream.resultsOf(sequence)).toEqual([]);
  });
});

describe("a change by others of an agent of a stream", () => {
  test.each([
    ["the same", () => one],
    ["another", () => other],
  ])("is pushed to the stream: a service's change at %s replica", async (where, at) => {
    const agentId = `changed at ${where}`;
    await one.createAgent(agentId);
    using stream = one.stream({ clawIdentifier: "claw-1" });
    await stream.say(alive(agentId));
    const told = async (count: number) => {
      await until(`${count} things are told`, () => stream.unasked(agentId).length >= count);
      return stream.unasked(agentId)[count - 1];
    };
    const claimed = await at().agents.updateStatus(
      agentId,
      { status: "on_call", holdMs: undefined },
      undefined,
      one.by,
    );
    expect(await told(1)).toMatchObject({ status: "on_call", revision: claimed.revision, refusal: null, sequence: 0n });
    const news = { exhausted: { reason: "billing", retryAfterMs: 60_000 } } as const;
    await at().agents.updateStatus(agentId, { status: news, holdMs: undefined }, undefined, one.by);
    expect(await told(2)).toMatchObject({ status: "exhausted", exhaustion: { reason: "billing" } });
    await at().agents.updateStatus(agentId, { status: "offline", holdMs: undefined }, undefined, one.by);
    expect(await told(3)).toMatchObject({ status: "offline" });
    await at().agents.move(agentId, "claw-2", one.by);
    expect(await told(4)).toMatchObject({ refusal: { reason: "WRONG_CLAW" }, status: null });
    await at().agents.delete(agentId, one.by);
    await until("the deletion is told or the agent is not the stream's any more", async () => {
      const [result] = await stream.say(alive(agentId));
      return result?.refusal?.reason === "AGENT_NOT_FOUND";
    });
    // The stream's own changes are not sent twice.
    expect(stream.unasked(agentId).length).toBeLessThanOrEqual(5);
  });

  test("is not pushed when the stream made it itself", async () => {
    const agentId = "talks to itself";
    await one.createAgent(agentId);
    await one.untilHeard();
    using stream = one.stream();
    for (const status of ["busy", "idle", "on_call", "idle"] as const) await stream.say(reports(agentId, status));
    await one.untilHeard();
    await stream.say(alive(agentId));
    expect(stream.unasked(agentId)).toEqual([]);
  });
});

describe("an agent that moves", () => {
  test.each([
    ["the same", () => one],
    ["another", () => other],
  ])("loses its session at the former claw and belongs to the new one, at %s replica", async (where, at) => {
    const agentId = `moves at ${where}`;
    await one.createAgent(agentId, "claw-1");
    using former = one.stream({ clawIdentifier: "claw-1" });
    await former.say(reports(agentId, "busy"));
    using early = at().stream({ clawIdentifier: "claw-2" });
    expect(await early.say(alive(agentId))).toMatchObject([{ refusal: { reason: "WRONG_CLAW" }, status: null }]);

    const before = await one.agents.get({ agentId });
    const moved = await at().agents.move(agentId, "claw-2", one.by);
    expect(moved).toMatchObject({ status: "busy", held: false });
    expect(moved.epoch).toBeGreaterThan(before.epoch);
    expect(await former.say(reports(agentId, "idle"))).toMatchObject([{ refusal: { reason: "WRONG_CLAW" } }]);
    expect(await early.say(reports(agentId, "on_call"))).toMatchObject([{ status: "on_call", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "moved: busy", "report: on_call"]);

    // And back again.
    await at().agents.move(agentId, "claw-1", one.by);
    expect(await early.say(alive(agentId))).toMatchObject([{ refusal: { reason: "WRONG_CLAW" } }]);
    expect(await former.say(alive(agentId))).toMatchObject([{ status: "on_call", refusal: null }]);
  });

  test("stays with a stream without a claw_identifier, once the stream claims it again", async () => {
    const agentId = "moves under a person's stream";
    await one.createAgent(agentId);
    using stream = one.stream();
    await stream.say(alive(agentId));
    await other.agents.move(agentId, "claw-2", one.by);
    const results = await stream.say(reports(agentId, "busy"));
    expect(results).toMatchObject([{ status: "busy", refusal: null }]);
  });
});
