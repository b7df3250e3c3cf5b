import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../chaos/random.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, goodbye, reports, type TestStream } from "../support/replica-stream.ts";
import { casesOf } from "../support/sample.ts";
import { until } from "../support/until.ts";

let testDatabase: TestDatabase;
let replicas: readonly Replica[];

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  replicas = await Promise.all(Array.from({ length: 3 }, () => openReplica(testDatabase.url)));
});

afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica[Symbol.asyncDispose]()));
  await testDatabase.drop();
});

const STATUSES = ["idle", "on_call", "busy"] as const;

/** The outcome of a beat, without the fields that differ between two agents. */
function told(
  results: readonly { readonly status: string | null; readonly refusal: { readonly reason: string } | null }[],
) {
  return results.map(({ status, refusal }) => refusal?.reason ?? status);
}

/**
 * The steps of a claw, single heartbeats and a service with one agent, in sequence, each at the replica that
 * the balancer chooses.
 * @returns the outcome of each step, and the log
 */
async function live(seed: number, agentId: string, balancer: (random: Random) => Replica) {
  const random = new Random(seed);
  const routes = new Random(seed + 1);
  const next = (): Replica => balancer(routes);
  const story: unknown[] = [];
  const instanceId = `claw of ${agentId}`;
  let generation = 1n;
  await next().createAgent(agentId);
  const streams: TestStream[] = [];
  const open = (): TestStream => {
    const stream = next().stream({ instanceId, generation });
    streams.push(stream);
    generation += 1n;
    return stream;
  };
  let stream = open();
  for (let step = 0; step < 40; step++) {
    const status = random.pick(STATUSES);
    const what = random.pick([
      "beat",
      "report",
      "report",
      "unary",
      "unary report",
      "service",
      "reconnect",
      "move on",
      "goodbye",
    ]);
    if (what === "beat") story.push(what, told(await stream.say(alive(agentId))));
    else if (what === "report") story.push(what, told(await stream.say(reports(agentId, status))));
    else if (what === "goodbye") story.push(what, told(await stream.say(goodbye(agentId))));
    else if (what === "unary" || what === "unary report") {
      const beat = what === "unary" ? alive(agentId) : reports(agentId, status);
      story.push(what, told(await next().liveness.beat([beat], { clawIdentifier: undefined, leaseMs: 30_000 })));
    } else if (what === "service") {
      const at = next();
      const refused = (error: { reason?: string }) => error.reason;
      const word = { status, holdMs: 0 };
      const changed = at.agents
        .updateStatus(agentId, word, undefined, at.by)
        .then(({ status: after }) => after, refused);
      story.push(what, await changed);
    } else if (what === "move on") {
      // The former stream has not ended yet, and sends one more beat.
      const former = stream;
      stream = open();
      story.push(
        what,
        told(await stream.say(reports(agentId, status))),
        told(await former.say(reports(agentId, "busy"))),
      );
    } else {
      stream.close();
      await until("it is free", async () => !(await next().agents.get({ agentId })).held);
      stream = open();
      story.push(what, told(await stream.say(alive(agentId))));
    }
  }
  for (const one of streams) one.close();
  return { story, log: await storyOf(next(), agentId) };
}

describe("three replicas behind a balancer that spreads streams, single heartbeats and calls", () => {
  test.each(casesOf([2], [1, 3, 4, 5, 6]))("treat an agent as one replica would (seed %i)", async (seed) => {
    const [only] = replicas;
    if (only === undefined) throw new TypeError("three replicas");
    const alone = await live(seed, `on one ${seed}`, () => only);
    const spread = await live(seed, `on three ${seed}`, (routes) => routes.pick(replicas));
    expect(spread.log).toEqual(alone.log);
    expect(spread.story).toEqual(alone.story);
    expect(alone.log.length).toBeGreaterThan(10);
  });

  test("return the same results to many agents of one claw, wherever their single heartbeats go", async () => {
    const [one, two, three] = replicas;
    if (one === undefined || two === undefined || three === undefined) throw new TypeError("three replicas");
    const agentIds = await one.seedAgents(300, "spread-");
    using stream = two.stream();
    await stream.say(...agentIds.map((agentId) => reports(agentId, "busy")));
    // At once: their beats come in some order, and none is lost or applied twice.
    const outcomes = await Promise.all(
      [one, two, three].map((at) =>
        at.liveness.beat(agentIds.map(alive), { clawIdentifier: undefined, leaseMs: 30_000 }),
      ),
    );
    await stream.say(...agentIds.map(alive));
    expect(outcomes.flat().every(({ refusal }) => refusal === null)).toBe(true);
    const rows = await one.query<{ status: string; held: boolean; count: number }>(
      `SELECT a.status, l.held, count(*)::integer AS count FROM agents a JOIN agent_liveness l ON l.agent = a.id
       WHERE starts_with(a.agent_id, 'spread-') GROUP BY a.status, l.held`,
    );
    expect(rows).toEqual([{ status: "busy", held: true, count: 300 }]);
    const [log] = await one.query<{ count: number }>(
      "SELECT count(*)::integer AS count FROM agent_transitions WHERE starts_with(agent_id, 'spread-')",
    );
    expect(log?.count).toBe(300);
  });

  test("apply a goodbye, also before the replica learns that the agent is back since its last one", async () => {
    const [one] = replicas;
    if (one === undefined) throw new TypeError("three replicas");
    await using slow = await openReplica(testDatabase.url, { listens: false });
    const agentId = "leaves twice";
    await one.createAgent(agentId);
    using stream = slow.stream();
    await stream.say(goodbye(agentId));
    const back = { clawIdentifier: undefined, leaseMs: 30_000 };
    await one.liveness.beat([reports(agentId, "busy")], back);
    expect(told(await stream.say(goodbye(agentId)))).toEqual(["offline"]);
    expect(await storyOf(one, agentId)).toEqual(["goodbye: offline", "report: busy", "goodbye: offline"]);
  });

  test("move an agent to a claw, also before the replica learns of it", async () => {
    const [one] = replicas;
    if (one === undefined) throw new TypeError("three replicas");
    await using slow = await openReplica(testDatabase.url, { listens: false });
    const agentId = "moves on";
    const beat = (clawIdentifier: string) =>
      slow.liveness.beat([reports(agentId, "busy")], { clawIdentifier, leaseMs: 30_000 });
    await one.createAgent(agentId, "claw-1");
    using stream = slow.stream();
    await stream.say(alive(agentId));
    expect(told(await beat("claw-2"))).toEqual(["WRONG_CLAW"]);
    await one.agents.move(agentId, "claw-2", one.by);
    expect(told(await beat("claw-2"))).toEqual(["busy"]);
    expect(told(await beat("claw-1"))).toEqual(["WRONG_CLAW"]);
  });

  test("watch an agent at the replica of its stream, after a single heartbeat elsewhere brought it back", async () => {
    const [one, two] = replicas;
    if (one === undefined || two === undefined) throw new TypeError("three replicas");
    const agentId = "back by the other listener";
    await one.createAgent(agentId);
    using stream = two.stream();
    await stream.say(goodbye(agentId));
    await one.liveness.beat([reports(agentId, "busy")], { clawIdentifier: undefined, leaseMs: 30_000 });
    expect(await one.agents.get({ agentId })).toMatchObject({ held: false, replicaId: one.number });
    await until("its stream holds it", async () => {
      expect(told(await stream.say(alive(agentId))).every((status) => status === "busy")).toBe(true);
      const { held, replicaId } = await one.agents.get({ agentId });
      return held && replicaId === two.number;
    });
    expect(await storyOf(one, agentId)).toEqual(["goodbye: offline", "report: busy"]);
  });
});
