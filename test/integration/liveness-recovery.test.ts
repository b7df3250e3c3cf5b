import { afterEach, describe, expect, test } from "vitest";
import type { ExhaustReason } from "../../common/contract/enum-names.ts";
import type { Exhaustion, Transition } from "../../src/domain/agent.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, type ReplicaOptions, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports, type TestStream } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const MS = 1_000;

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

/** A recovery that happens later was found by the scan of all agents, which runs each 10 s. */
const PROMPT_MS = 8_000;

async function replicas(...options: ReplicaOptions[]): Promise<[Replica, ...Replica[]]> {
  const { url } = undo.use(await createTestDatabase());
  const [first, ...others] = await Promise.all(options.map((option) => openReplica(url, option)));
  if (first === undefined) throw new TypeError("at least one replica");
  for (const replica of [first, ...others]) undo.use(replica);
  return [first, ...others];
}

async function recoveryOf(replica: Replica, agentId: string, withinMs?: number): Promise<Transition> {
  return await until(
    `${agentId} recovers`,
    async () => (await replica.history(agentId)).findLast(({ cause }) => cause === "recovery"),
    withinMs,
  );
}

function exhaustionOf(agent: { readonly exhaustion: Exhaustion | null } | undefined): Exhaustion {
  if (agent?.exhaustion == null) throw new TypeError("the agent is not exhausted");
  return agent.exhaustion;
}

/** Sets agents exhausted in the database, unnoticed by the service, until a moment by the database's clock. */
async function exhaust(replica: Replica, prefix: string, forMs: number): Promise<void> {
  await replica.query(
    `UPDATE agents SET status = 'exhausted', exhausted_at = clock_timestamp() - interval '1 hour', exhaust_reason = 'rate_limit',
       recovery_at = (SELECT clock_timestamp()) + $2::integer * interval '1 millisecond'
     WHERE starts_with(agent_id, $1)`,
    prefix,
    forMs,
  );
}

describe("a recovery", () => {
  test.each([
    ["a report", 0],
    ["a report, whole seconds ahead", 1_900],
  ])("happens at recovery_at, never before: by %s", async (_, aheadMs) => {
    const [replica] = await replicas({});
    await replica.createAgent("rests");
    using stream = replica.stream();
    const [told] = await stream.say(
      reports("rests", { exhausted: { reason: "rate_limit", retryAfterMs: 300 + aheadMs } }),
    );
    const { recoveryAt, exhaustedAt } = exhaustionOf(told);
    expect((recoveryAt - exhaustedAt) / MS).toBe(300 + aheadMs);
    const recovered = await recoveryOf(replica, "rests");
    expect(recovered).toMatchObject({ actor: "server", fromStatus: "exhausted", toStatus: "idle", exhaustion: null });
    expect(recovered.occurredAt).toBeGreaterThanOrEqual(recoveryAt);
    expect((recovered.occurredAt - recoveryAt) / MS).toBeLessThan(PROMPT_MS);
    await until("the stream is told", () => stream.unasked("rests").at(-1)?.status === "idle");
  });

  test("needs neither the session nor the replica that received the exhaustion", async () => {
    const { url } = undo.use(await createTestDatabase());
    const first = await openReplica(url, { started: false });
    await first.seedAgents(1, "long ago-");
    await exhaust(first, "long ago-", -60_000);
    await first.createAgent("soon");
    const stream = first.stream();
    const [told] = await stream.say(reports("soon", { exhausted: { reason: "billing", retryAfterMs: 1_200 } }));
    await first[Symbol.asyncDispose]();

    const next = undo.use(await openReplica(url));
    await recoveryOf(next, "long ago-1");
    const { occurredAt } = await recoveryOf(next, "soon");
    const late = (occurredAt - exhaustionOf(told).recoveryAt) / MS;
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(PROMPT_MS);
  });

  test("of an offline agent clears the exhaustion and leaves the agent offline", async () => {
    const [replica] = await replicas({});
    await replica.createAgent("away");
    using stream = replica.stream();
    await stream.say(reports("away", { exhausted: { reason: "rate_limit", retryAfterMs: 400 } }), goodbye("away"));
    await recoveryOf(replica, "away");
    expect(await replica.agents.get({ agentId: "away" })).toMatchObject({
      status: "offline",
      exhaustion: null,
      leaseExpiresAt: null,
    });
    expect(await storyOf(replica, "away")).toEqual(["report: exhausted", "goodbye: offline", "recovery: offline"]);
    expect((await stream.say(alive("away"))).at(-1)).toMatchObject({ status: "idle" });
  });

  test("follows the newest deadline, earlier or later", async () => {
    const [replica] = await replicas({});
    await Promise.all([replica.createAgent("put off"), replica.createAgent("brought forward")]);
    using stream = replica.stream();
    const exhausted = (agentId: string, ms: number, from = 0) =>
      reports(agentId, {
        exhausted:
          from === 0 ? { reason: "billing", retryAfterMs: ms } : { reason: "billing", recoveryAt: from + ms * MS },
      });
    const [off, forward] = await stream.say(exhausted("put off", 300), exhausted("brought forward", 600_000));
    const later = await stream.say(
      exhausted("put off", 900, exhaustionOf(off).recoveryAt),
      exhausted("brought forward", 400, exhaustionOf(forward).exhaustedAt),
    );
    // A new deadline while exhausted keeps exhausted_at.
    expect(later.map((result) => exhaustionOf(result).exhaustedAt)).toEqual(
      [off, forward].map((result) => exhaustionOf(result).exhaustedAt),
    );
    for (const [index, agentId] of ["put off", "brought forward"].entries()) {
      const late = ((await recoveryOf(replica, agentId)).occurredAt - exhaustionOf(later[index]).recoveryAt) / MS;
      expect(late).toBeGreaterThanOrEqual(0);
      expect(late).toBeLessThan(PROMPT_MS);
    }
  });

  test("is not missed when the exhaustion commits while a replica reads the due agents", async () => {
    const [replica, other = replica] = await replicas({}, { started: false });
    await replica.createAgent("in between");
    using stream = other.stream();
    await stream.say(alive("in between"));
    using hold = replica.gate.hold("due-recoveries", "after", 1);
    await hold.arrived();
    const [told] = await stream.say(reports("in between", { exhausted: { reason: "rate_limit", retryAfterMs: 300 } }));
    await replica.untilHeard();
    hold.release();
    const late = ((await recoveryOf(replica, "in between")).occurredAt - exhaustionOf(told).recoveryAt) / MS;
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(PROMPT_MS);
  });

  test("happens once, however many replicas find it", async () => {
    const [one] = await replicas({}, {}, {});
    await one.createAgent("watched by three");
    using stream = one.stream();
    await stream.say(reports("watched by three", { exhausted: { reason: "rate_limit", retryAfterMs: 500 } }));
    await recoveryOf(one, "watched by three");
    await one.agents.updateStatus("watched by three", { status: "busy", holdMs: 0 }, undefined, one.by);
    expect(await storyOf(one, "watched by three")).toEqual(["report: exhausted", "recovery: idle", "service: busy"]);
  });
});

describe("the duration of an exhaustion without a deadline", () => {
  async function working(agentId: string): Promise<{ replica: Replica; stream: TestStream }> {
    const [replica] = await replicas({});
    await replica.createAgent(agentId);
    const stream = replica.stream();
    await stream.say(alive(agentId));
    return { replica, stream };
  }

  /** The seconds that the server chooses for the next exhaustion. */
  async function next(stream: TestStream, agentId: string, reason: ExhaustReason): Promise<number> {
    const [told] = await stream.say(reports(agentId, { exhausted: { reason } }));
    const { recoveryAt, exhaustedAt } = exhaustionOf(told);
    return (recoveryAt - exhaustedAt) / MS / 1_000;
  }

  function expectAbout(seconds: number, expected: number): void {
    expect(seconds).toBeGreaterThanOrEqual(expected * 0.9);
    expect(seconds).toBeLessThanOrEqual(expected * 1.1);
  }

  test("doubles each time, by reason, up to 24 h", async () => {
    const { replica, stream } = await working("grows");
    for (const expected of [30, 60, 120, 240]) {
      expectAbout(await next(stream, "grows", "rate_limit"), expected);
      await stream.say(reports("grows", "idle"));
    }
    expectAbout(await next(stream, "grows", "billing"), 600 * 2 ** 4);
    await stream.say(reports("grows", "idle"));
    await replica.query("UPDATE agents SET backoff_steps = 30");
    using again = replica.stream();
    await again.say(alive("grows"));
    const longest = await next(again, "grows", "rate_limit");
    expect(longest).toBeLessThanOrEqual(24 * 3_600);
    expect(longest).toBeGreaterThan(24 * 3_600 * 0.89);
  });

  test("starts again when the agent itself finishes work, not by recovery alone", async () => {
    const { replica, stream } = await working("finishes");
    expectAbout(await next(stream, "finishes", "rate_limit"), 30);
    await replica.agents.updateStatus("finishes", { status: "idle", holdMs: 0 }, undefined, replica.by);
    expectAbout(await next(stream, "finishes", "rate_limit"), 60);
    await stream.say(reports("finishes", "busy"));
    expectAbout(await next(stream, "finishes", "rate_limit"), 120);
    await stream.say(reports("finishes", "on_call"), reports("finishes", "idle"));
    expectAbout(await next(stream, "finishes", "rate_limit"), 30);
  });

  test("stays after a recovery by time, and starts again after 24 h without exhaustion", async () => {
    const { replica, stream } = await working("rests a day");
    const [told] = await stream.say(reports("rests a day", { exhausted: { reason: "rate_limit" } }));
    expectAbout((exhaustionOf(told).recoveryAt - exhaustionOf(told).exhaustedAt) / MS / 1_000, 30);
    const soon = exhaustionOf(told).exhaustedAt + 300 * MS;
    await stream.say(reports("rests a day", { exhausted: { reason: "rate_limit", recoveryAt: soon } }));
    await recoveryOf(replica, "rests a day");
    expectAbout(await next(stream, "rests a day", "rate_limit"), 60);
    await stream.say(reports("rests a day", "busy"));
    await replica.query("UPDATE agents SET backoff_at = clock_timestamp() - interval '25 hours'");
    // A stream that claims the agent again reads it again.
    using again = replica.stream();
    await again.say(alive("rests a day"));
    expectAbout(await next(again, "rests a day", "rate_limit"), 30);
  });

  test("is not chosen again for a report that repeats the exhaustion", async () => {
    const { replica, stream } = await working("repeats itself");
    const first = await next(stream, "repeats itself", "rate_limit");
    const before = await replica.agents.get({ agentId: "repeats itself" });
    for (let n = 0; n < 3; n++) await stream.say(reports("repeats itself", { exhausted: { reason: "rate_limit" } }));
    expectAbout(first, 30);
    const { exhaustion, backoff, revision } = await replica.agents.get({ agentId: "repeats itself" });
    expect({ exhaustion, backoff, revision }).toEqual({
      exhaustion: before.exhaustion,
      backoff: before.backoff,
      revision: before.revision,
    });
  });
});
