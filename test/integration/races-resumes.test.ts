import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { SessionStart } from "../../common/contract/enum-names.ts";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports, starting, type TestStream } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let one: Replica;
let other: Replica;
let locks: RowLocks;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  [one, other] = await Promise.all([openReplica(testDatabase.url), openReplica(testDatabase.url)]);
  locks = await RowLocks.open(testDatabase.url);
});

afterAll(async () => {
  await locks[Symbol.asyncDispose]();
  await Promise.all([one[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await testDatabase.drop();
});

afterEach(() => locks.rollback());

const SUPERSEDED = { refusal: { reason: "SESSION_SUPERSEDED" }, status: null, revision: null };
const TAKEN = { refusal: null };
/** Two processes of one claw. */
const FORMER = { instanceId: "the process that returns", generation: 1n };
const FORMER_AGAIN = { instanceId: "the process that returns", generation: 2n };
const TAKER = { instanceId: "the process that took over", generation: 1n };
const TAKER_AGAIN = { instanceId: "the process that took over", generation: 2n };

const first = (beat: ParsedBeat) => starting("first", beat);
const anew = (beat: ParsedBeat) => starting("anew", beat);
const resume = (beat: ParsedBeat) => starting("resume", beat);

async function isFree(agentId: string): Promise<void> {
  await until("no session holds the agent", async () => !(await one.agents.get({ agentId })).held);
}

/** An agent that FORMER held, and whose stream has ended. */
async function abandonedAgent(agentId: string): Promise<void> {
  await one.createAgent(agentId);
  const stream = one.stream(FORMER);
  expect(await stream.say(first(reports(agentId, "busy")))).toMatchObject([TAKEN]);
  stream.close();
  await isFree(agentId);
}

/** A process takes the agent and loses its connection. */
async function passing(agentId: string, options: Parameters<Replica["stream"]>[0], beat: ParsedBeat): Promise<void> {
  const stream = other.stream(options);
  expect(await stream.say(beat)).toMatchObject([TAKEN]);
  stream.close();
  await isFree(agentId);
}

/** Whether the stream holds the agent: its beats renew the lease. */
async function expectHolds(stream: TestStream, agentId: string): Promise<void> {
  expect(await stream.say(alive(agentId))).toEqual([]);
}

describe.each(["same", "other"] as const)("a resume against a claim by another process at the %s replica", (where) => {
  const at = () => (where === "same" ? one : other);
  /** At one replica, the second claim waits there for the first; at two, both wait for the row. */
  const inLine = () => locks.waiting("claim-agents", where === "same" ? 1 : 2);

  test("is rejected when the claim commits first, and the other process keeps the agent", async () => {
    const agentId = `claimed, then resumed at the ${where}`;
    await abandonedAgent(agentId);
    using taker = at().stream(TAKER);
    using returning = one.stream(FORMER_AGAIN);

    await locks.takeLiveness(agentId);
    const claim = taker.send(first(reports(agentId, "on_call")));
    await locks.waiting("claim-agents");
    const late = returning.send(resume(reports(agentId, "busy")), resume(goodbye(agentId)));
    await inLine();
    await locks.commit();

    await Promise.all([taker.acknowledgedUpTo(claim), returning.acknowledgedUpTo(late)]);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "on_call", refusal: null }]);
    expect(returning.resultsOf(late)).toMatchObject([SUPERSEDED, SUPERSEDED]);
    await expectHolds(taker, agentId);
    expect(taker.unasked(agentId)).toEqual([]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "report: on_call"]);
  });

  test("is superseded by the claim when it commits first", async () => {
    const agentId = `resumed, then claimed at the ${where}`;
    await abandonedAgent(agentId);
    using taker = at().stream(TAKER);
    using returning = one.stream(FORMER_AGAIN);

    await locks.takeLiveness(agentId);
    const back = returning.send(resume(alive(agentId)));
    await locks.waiting("claim-agents");
    const claim = taker.send(first(reports(agentId, "on_call")));
    await inLine();
    await locks.commit();

    await Promise.all([taker.acknowledgedUpTo(claim), returning.acknowledgedUpTo(back)]);
    expect(taker.resultsOf(claim)).toMatchObject([{ status: "on_call", refusal: null }]);
    expect(await returning.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    await expectHolds(taker, agentId);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "report: on_call"]);
  });

  test("is rejected although the claim has ended; the other process may resume, and the program may claim", async () => {
    const agentId = `claimed and left at the ${where}`;
    await abandonedAgent(agentId);
    await passing(agentId, TAKER, first(reports(agentId, "on_call")));
    using returning = at().stream(FORMER_AGAIN);
    expect(await returning.say(resume(reports(agentId, "busy")))).toMatchObject([SUPERSEDED]);
    // Nor do its next beats get the agent, although no stream holds it.
    expect(await returning.say(reports(agentId, "idle"))).toMatchObject([SUPERSEDED]);
    expect(await returning.say(first(alive(agentId)))).toMatchObject([SUPERSEDED]);
    using taker = one.stream(TAKER_AGAIN);
    expect(await taker.say(resume(alive(agentId)))).toMatchObject([{ status: "on_call", refusal: null }]);
    await expectHolds(taker, agentId);

    expect(await returning.say(anew(reports(agentId, "busy")))).toMatchObject([{ status: "busy", refusal: null }]);
    expect(await taker.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    await expectHolds(returning, agentId);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "report: on_call", "report: busy"]);
  });

  test("is rejected when the claim came and ended while the resume was stuck in a stalled replica", async () => {
    const agentId = `stuck, at the ${where}`;
    await abandonedAgent(agentId);
    using hold = one.gate.hold("claim-agents", "before", 1);
    using returning = one.stream(FORMER_AGAIN);
    const late = returning.send(resume(reports(agentId, "busy")));
    await hold.arrived();
    await passing(agentId, TAKER, first(reports(agentId, "on_call")));
    hold.release();
    await returning.acknowledgedUpTo(late);
    expect(returning.resultsOf(late)).toMatchObject([SUPERSEDED]);
    using taker = at().stream(TAKER_AGAIN);
    expect(await taker.say(resume(alive(agentId)))).toMatchObject([{ status: "on_call", refusal: null }]);
  });
});

describe("a stream that stayed open while its process was frozen", () => {
  const OLD = (beat: ParsedBeat) => beat;

  test.each([
    ["renewal", alive, "renew-leases"],
    ["report", (agentId: string) => reports(agentId, "busy"), "commit-changes"],
    ["goodbye", goodbye, "commit-changes"],
  ] as const)("claims nothing by earlier beats: a %s that arrives when another process has come and gone", async (what, beat, statement) => {
    const agentId = `sent before the freeze: ${what}`;
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(first(alive(agentId)));
    using hold = one.gate.hold(statement, "before", 1);
    const late = former.send(beat(agentId));
    await hold.arrived();
    await passing(agentId, TAKER, first(reports(agentId, "on_call")));
    hold.release();

    await former.acknowledgedUpTo(late);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
    using taker = other.stream(TAKER_AGAIN);
    expect(await taker.say(resume(alive(agentId)))).toMatchObject([{ status: "on_call", refusal: null }]);
    expect(await storyOf(one, agentId)).toEqual(["report: on_call"]);
  });

  test.each([
    { it: "with a first start, leaves the agent to the other process", begin: first, answer: SUPERSEDED },
    { it: "with a resume, leaves the agent to the other process", begin: resume, answer: SUPERSEDED },
    // As in version 0.1.
    { it: "without a start claims a free agent", begin: OLD, answer: TAKEN },
  ])("$it, by its next beats after the freeze", async ({ it, begin, answer }) => {
    const agentId = `goes on: ${it}`;
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(begin(alive(agentId)));
    await passing(agentId, TAKER, first(alive(agentId)));
    expect(await former.say(alive(agentId))).toMatchObject([answer]);
  });

  test("loses the agent to another stream that resumes it, and cannot take it back", async () => {
    const agentId = "resumed beside it";
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(first(alive(agentId)));
    using again = other.stream(FORMER_AGAIN);
    expect(await again.say(resume(alive(agentId)))).toMatchObject([TAKEN]);
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    await expectHolds(again, agentId);
    // No other process has held it: once it is free, either stream may continue.
    again.close();
    await isFree(agentId);
    expect(await former.say(alive(agentId))).toMatchObject([TAKEN]);
  });

  test("does not compete with another stream of the same process and the same generation", async () => {
    const agentId = "two streams of one number";
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(first(alive(agentId)));
    using again = other.stream(FORMER);
    expect(await again.say(resume(alive(agentId)))).toMatchObject([TAKEN]);
    expect(await former.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    await expectHolds(again, agentId);
  });
});

describe("a new claim", () => {
  test("during a resume is a claim of its own, and the next beats follow it", async () => {
    const agentId = "anew behind a resume";
    await abandonedAgent(agentId);
    using taker = other.stream(TAKER);
    await taker.say(first(reports(agentId, "on_call")));
    using hold = one.gate.hold("claim-agents", "before", 1);
    using returning = one.stream(FORMER_AGAIN);
    const late = returning.send(resume(alive(agentId)), anew(reports(agentId, "busy")), reports(agentId, "idle"));
    await hold.arrived();
    hold.release();
    await returning.acknowledgedUpTo(late);
    expect(returning.resultsOf(late)).toMatchObject([SUPERSEDED, { status: "busy" }, { status: "idle" }]);
    expect(await taker.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    expect(await storyOf(one, agentId)).toEqual(["report: busy", "report: on_call", "report: busy", "report: idle"]);
  });

  test("of an agent that the stream holds takes it from no stream that claims it later", async () => {
    const agentId = "anew for nothing";
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(first(alive(agentId)));
    using hold = one.gate.hold("commit-changes", "before", 1);
    const late = former.send(anew(reports(agentId, "busy")));
    await hold.arrived();
    using taker = other.stream(TAKER);
    await taker.say(first(alive(agentId)));
    hold.release();
    await former.acknowledgedUpTo(late);
    expect(former.resultsOf(late)).toMatchObject([SUPERSEDED]);
    await expectHolds(taker, agentId);
  });

  test("counts once: lost to a later claim before it is applied, it does not take the agent back", async () => {
    const agentId = "anew, once";
    await abandonedAgent(agentId);
    using returning = one.stream(FORMER_AGAIN);
    using hold = one.gate.hold("commit-changes", "before", 1);
    const late = returning.send(anew(reports(agentId, "idle")));
    await hold.arrived();
    using taker = other.stream(TAKER);
    await taker.say(first(alive(agentId)));
    hold.release();
    await returning.acknowledgedUpTo(late);
    expect(returning.resultsOf(late)).toMatchObject([SUPERSEDED]);
    await expectHolds(taker, agentId);
  });

  test("loses against a stream of the same process with a higher generation", async () => {
    const agentId = "anew, but older";
    await one.createAgent(agentId);
    using newer = one.stream(FORMER_AGAIN);
    await newer.say(first(alive(agentId)));
    using older = other.stream(FORMER);
    expect(await older.say(anew(alive(agentId)))).toMatchObject([SUPERSEDED]);
    await expectHolds(newer, agentId);
  });
});

describe("a resume", () => {
  test("is rejected after a process without an instance_id has held the agent", async () => {
    const agentId = "held by somebody";
    await abandonedAgent(agentId);
    await passing(agentId, {}, alive(agentId));
    using returning = one.stream(FORMER_AGAIN);
    expect(await returning.say(resume(alive(agentId)))).toMatchObject([SUPERSEDED]);
  });

  test.each<SessionStart>(["first", "anew"])("gets back an agent whose replica is gone, and %s does", async (start) => {
    const agentId = `held by a replica that is gone: ${start}`;
    await one.createAgent(agentId);
    using former = one.stream(FORMER);
    await former.say(first(alive(agentId)));
    await one.query(
      "UPDATE agent_liveness SET replica_id = 999999 WHERE agent = (SELECT id FROM agents WHERE agent_id = $1)",
      agentId,
    );
    using stranger = other.stream(TAKER);
    expect(await stranger.say(resume(alive(agentId)))).toMatchObject([SUPERSEDED]);
    using again = other.stream(FORMER_AGAIN);
    expect(await again.say(resume(alive(agentId)))).toMatchObject([TAKEN]);
    expect(await stranger.say(starting(start === "first" ? "anew" : start, alive(agentId)))).toMatchObject([TAKEN]);
  });

  test("without instance_id, and any start of a unary heartbeat, is invalid and affects no other beat", async () => {
    const [agentId, neighbour] = ["nameless", "nameless's neighbour"];
    await Promise.all([one.createAgent(agentId), one.createAgent(neighbour)]);
    using nameless = one.stream();
    expect(await nameless.say(first(alive(neighbour)), resume(alive(agentId)))).toMatchObject([
      TAKEN,
      {
        refusal: {
          reason: "INVALID_FIELD",
          violations: [{ field: "beats[1].session_start", description: expect.stringContaining("instance_id") }],
        },
      },
    ]);
    const { held } = await one.agents.get({ agentId });
    expect(held).toBe(false);
    for (const start of ["first", "anew", "resume"] as const) {
      const beats = [alive(neighbour), starting(start, reports(agentId, "busy"))];
      expect(await other.liveness.beat(beats, { clawIdentifier: undefined, leaseMs: 30_000 })).toMatchObject([
        { status: "idle", refusal: null },
        { status: null, refusal: { reason: "INVALID_FIELD", violations: [{ field: "beats[1].session_start" }] } },
      ]);
    }
    expect(await storyOf(one, agentId)).toEqual([]);
  });

  test("gets an agent that was moved away and back, unless another process has held it since", async () => {
    const agentId = "there and back";
    const claw1 = { clawIdentifier: "claw-1" };
    await one.createAgent(agentId, "claw-1");
    using former = one.stream({ ...FORMER, ...claw1 });
    await former.say(first(alive(agentId)));
    await one.agents.move(agentId, "claw-2", one.by);
    await passing(agentId, { ...TAKER, clawIdentifier: "claw-2" }, first(alive(agentId)));
    using early = one.stream({ ...FORMER_AGAIN, ...claw1 });
    expect(await early.say(resume(alive(agentId)))).toMatchObject([{ refusal: { reason: "WRONG_CLAW" } }]);
    await one.agents.move(agentId, "claw-1", one.by);
    expect(await early.say(resume(alive(agentId)))).toMatchObject([TAKEN]);

    await one.agents.move(agentId, "claw-2", one.by);
    await one.agents.move(agentId, "claw-1", one.by);
    await passing(agentId, { instanceId: "a third process", ...claw1 }, first(alive(agentId)));
    expect(await early.say(alive(agentId))).toMatchObject([SUPERSEDED]);
    using again = other.stream({ ...FORMER, generation: 3n, ...claw1 });
    expect(await again.say(resume(alive(agentId)))).toMatchObject([SUPERSEDED]);
  });

  test("gets an agent that was deleted and created again, unless another process has held the new one", async () => {
    const agentId = "another one of the same name";
    await abandonedAgent(agentId);
    const recreate = async () => {
      const { userId } = await one.agents.get({ agentId });
      await one.agents.delete(agentId, one.by);
      await one.agents.create({ userId, agentId, clawIdentifier: "claw-1" }, one.by);
    };
    await recreate();
    using returning = one.stream(FORMER_AGAIN);
    expect(await returning.say(resume(alive(agentId)))).toMatchObject([{ status: "idle", refusal: null }]);
    returning.close();
    await recreate();
    await passing(agentId, TAKER, first(alive(agentId)));
    using again = other.stream({ ...FORMER, generation: 3n });
    expect(await again.say(resume(alive(agentId)))).toMatchObject([SUPERSEDED]);
  });
});
