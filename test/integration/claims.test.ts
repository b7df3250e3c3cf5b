import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Agent } from "../../src/domain/agent.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica, storyOf } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const HOUR_MS = 3_600_000;
const ALL = { agentIds: [], userIds: [], clawIdentifiers: [], statuses: [] };

let database: TestDatabase;
/** Watches agents and their deadlines. */
let watching: Replica;
/** Receives changes and unary heartbeats. Acts on no deadline, and holds no agent. */
let other: Replica;

beforeAll(async () => {
  database = await createTestDatabase();
  watching = await openReplica(database.url);
  other = await openReplica(database.url, { started: false });
});
afterAll(async () => {
  await Promise.all([watching[Symbol.asyncDispose](), other[Symbol.asyncDispose]()]);
  await database.drop();
});

async function claim(agentId: string, holdMs?: number, status: "busy" | "on_call" = "busy"): Promise<Agent> {
  return await other.agents.updateStatus(agentId, { status, holdMs }, undefined, other.by);
}

/** A unary heartbeat: the agent stays with the replica that watches it. */
async function beats(...of: Parameters<typeof reports> | [string]): Promise<void> {
  const [agentId, report, knownRevision] = of;
  const beat = report === undefined ? alive(agentId) : reports(agentId, report, knownRevision);
  await other.liveness.beat([beat], { clawIdentifier: undefined, leaseMs: 30_000 });
}

async function beatsKnowing(agentId: string, knownRevision: bigint): Promise<void> {
  const beat = { agentId, leaving: false, beat: { report: undefined, knownRevision } } as const;
  await other.liveness.beat([beat], { clawIdentifier: undefined, leaseMs: 30_000 });
}

/** Whether a claim of the agent waits for its confirmation. */
async function waits(agentId: string): Promise<boolean> {
  const deadlines = await watching.query(
    "SELECT FROM agent_deadlines d JOIN agents a ON a.id = d.agent WHERE a.agent_id = $1 AND d.kind = 'claim'",
    agentId,
  );
  return deadlines.length > 0;
}

describe("a claim that the agent does not confirm", () => {
  test("lapses when its hold ends, not earlier: the agent returns to its status before", async () => {
    await watching.createAgent("forgetful");
    await beats("forgetful", "on_call");
    const claimed = await claim("forgetful", 700);
    expect(claimed.status).toBe("busy");
    expect(await waits("forgetful")).toBe(true);
    const back = await watching.untilStatus("forgetful", "on_call");
    expect(back.hold).toBeNull();
    expect(await waits("forgetful")).toBe(false);
    const last = (await watching.history("forgetful")).at(-1);
    expect(last).toMatchObject({ cause: "service", actor: "server", fromStatus: "busy", toStatus: "on_call" });
    expect(last?.occurredAt).toBeGreaterThanOrEqual(claimed.hold?.until ?? Number.POSITIVE_INFINITY);
  });

  test("lapses although the agent sends heartbeats and reports that do not know of it", async () => {
    await watching.createAgent("unaware");
    const claimed = await claim("unaware", 700);
    await beats("unaware");
    await beats("unaware", "idle");
    await beatsKnowing("unaware", claimed.revision - 1n);
    await watching.untilStatus("unaware", "idle");
    expect(await storyOf(watching, "unaware")).toEqual(["service: busy", "service: idle"]);
  });

  test("lapses once, however many replicas watch the agent", async () => {
    await using second = await openReplica(database.url);
    await watching.createAgent("watched");
    // No replica has this number, so that all of them watch the agent.
    await watching.query(
      "UPDATE agent_liveness SET replica_id = 0 WHERE agent = (SELECT id FROM agents WHERE agent_id = 'watched')",
    );
    await claim("watched", 700);
    await watching.untilStatus("watched", "idle");
    await Promise.all([watching.untilHeard(), second.untilHeard()]);
    expect(await storyOf(watching, "watched")).toEqual(["service: busy", "service: idle"]);
  });

  test("is told to the stream of the agent, also when it lapses", async () => {
    await watching.createAgent("streaming");
    using stream = watching.stream();
    await stream.say(reports("streaming", "idle"));
    await claim("streaming", 700);
    await until("both are told", () => stream.unasked("streaming").length === 2);
    expect(stream.unasked("streaming").map(({ status }) => status)).toEqual(["busy", "idle"]);
  });
});

describe("a claim does not lapse", () => {
  /** After it, every deadline before has been acted on. */
  async function untilOthersLapse(): Promise<void> {
    const agentId = `witness ${Math.random()}`;
    await watching.createAgent(agentId);
    await claim(agentId, 700);
    await watching.untilStatus(agentId, "idle");
  }

  test.each([
    ["a report of its status", "confirmed", (agentId: string) => beats(agentId, "busy")],
    [
      "a heartbeat without a status that knows of it",
      "known",
      (agentId: string, { revision }: Agent) => beatsKnowing(agentId, revision),
    ],
  ])("after %s", async (_, agentId, confirm) => {
    await watching.createAgent(agentId);
    await confirm(agentId, await claim(agentId, 700));
    expect((await watching.agents.get({ agentId })).status).toBe("busy");
    expect(await waits(agentId)).toBe(false);
    await untilOthersLapse();
    expect(await storyOf(watching, agentId)).toEqual(["service: busy"]);
  });

  test("whose agent only knows of it: its hold stays", async () => {
    await watching.createAgent("knowing");
    const { revision } = await claim("knowing", HOUR_MS);
    await beatsKnowing("knowing", revision);
    await beats("knowing", "idle");
    expect((await watching.agents.get({ agentId: "knowing" })).status).toBe("busy");
  });

  test("with a hold of 0", async () => {
    await watching.createAgent("unheld");
    expect(await claim("unheld", 0)).toMatchObject({ status: "busy", hold: null });
    expect(await waits("unheld")).toBe(false);
  });

  test.each([
    ["a move", (agentId: string) => other.agents.move(agentId, "claw-2", other.by)],
    [
      "an exhaustion",
      (agentId: string) =>
        other.agents.updateStatus(
          agentId,
          { status: { exhausted: { reason: "billing", retryAfterMs: HOUR_MS } }, holdMs: 0 },
          undefined,
          other.by,
        ),
    ],
    [
      "a service that sets it offline",
      (agentId: string) =>
        other.agents.updateStatus(agentId, { status: "offline", holdMs: undefined }, undefined, other.by),
    ],
  ])("after %s, which also ends its hold", async (what, change) => {
    await watching.createAgent(what);
    await claim(what, HOUR_MS);
    await change(what);
    expect((await watching.agents.get({ agentId: what })).hold).toBeNull();
    expect(await waits(what)).toBe(false);
  });

  test("that is confirmed after the lapse was judged and before it commits", async () => {
    await watching.createAgent("late but in time");
    using hold = watching.gate.hold("commit-changes", "before", 1);
    const { revision } = await claim("late but in time", 700);
    await hold.arrived();
    await beatsKnowing("late but in time", revision);
    hold.release();
    await untilOthersLapse();
    expect(await storyOf(watching, "late but in time")).toEqual(["service: busy"]);
  });

  test("while a heartbeat of its agent waits to be written", async () => {
    await watching.createAgent("pending");
    const { revision } = await claim("pending", 700);
    using hold = watching.gate.hold("claim-agents", "before", 1);
    using stream = watching.stream();
    const sequence = stream.send({
      agentId: "pending",
      leaving: false,
      beat: { report: undefined, knownRevision: revision },
    });
    await hold.arrived();
    await untilOthersLapse();
    hold.release();
    await stream.acknowledgedUpTo(sequence);
    expect(await storyOf(watching, "pending")).toEqual(["service: busy"]);
  });
});

describe("the lapse of a claim survives the replica that watches the agent", () => {
  const INTERVAL_MS = 400;

  test("whose outage extends it: the agents have one lease to be heard by the adopter", async () => {
    await using testDatabase = await createTestDatabase();
    const lost = await openReplica(testDatabase.url, {
      intervalMs: INTERVAL_MS,
      started: false,
      firstLeaseMs: HOUR_MS,
    });
    await using service = await openReplica(testDatabase.url, { intervalMs: INTERVAL_MS, started: false });
    await lost.createAgent("orphan");
    await lost.query("UPDATE replicas SET seen_at = clock_timestamp() WHERE id = $1", lost.number);
    const claimed = await service.agents.updateStatus("orphan", { status: "busy", holdMs: 300 }, undefined, service.by);
    await using adopter = await openReplica(testDatabase.url, { intervalMs: INTERVAL_MS, firstLeaseMs: HOUR_MS });
    const back = await adopter.untilStatus("orphan", "idle");
    const [row] = await adopter.query<{ until: number; adopted_by: number }>(
      "SELECT no_lease_ends_before AS until, adopted_by FROM replicas WHERE id = $1",
      lost.number,
    );
    expect(row?.adopted_by).toBe(adopter.number);
    expect(row?.until).toBeGreaterThan(claimed.hold?.until ?? Number.POSITIVE_INFINITY);
    expect(back.statusChangedAt).toBeGreaterThanOrEqual(row?.until ?? Number.POSITIVE_INFINITY);
    await lost[Symbol.asyncDispose]();
  });

  test("and an outage that was over before the claim does not extend it", async () => {
    await using testDatabase = await createTestDatabase();
    await using replica = await openReplica(testDatabase.url, { firstLeaseMs: HOUR_MS });
    await replica.createAgent("later");
    await replica.query("UPDATE replicas SET seen_at = seen_at - interval '1 minute' WHERE id = $1", replica.number);
    const guarded = await until("the replica was isolated", async () => {
      const [row] = await replica.query<{ until: number | null }>(
        "SELECT greatest(r.no_lease_ends_before, f.no_lease_ends_before) AS until FROM replicas r, fleet_state f",
      );
      return row?.until ?? undefined;
    });
    await replica.agents.updateStatus("later", { status: "busy", holdMs: 700 }, undefined, replica.by);
    const back = await replica.untilStatus("later", "idle");
    expect(back.statusChangedAt).toBeLessThan(guarded);
  });
});

describe("a suspect agent", () => {
  /** As if the brake delayed the expiry of this lease. */
  async function suspect(agentId: string): Promise<void> {
    await quiet.query("UPDATE fleet_state SET brake_engaged_at = coalesce(brake_engaged_at, clock_timestamp())");
    await quiet.backdateLease(agentId);
  }

  let own: TestDatabase;
  /** Releases no brake and expires no lease. */
  let quiet: Replica;
  beforeAll(async () => {
    own = await createTestDatabase();
    quiet = await openReplica(own.url, { started: false });
  });
  afterAll(async () => {
    await quiet[Symbol.asyncDispose]();
    await own.drop();
  });

  test.each(["on_call", "busy"] as const)("cannot be claimed: %s", async (status) => {
    await quiet.createAgent(status);
    await suspect(status);
    await expect(
      quiet.agents.updateStatus(status, { status, holdMs: undefined }, undefined, quiet.by),
    ).rejects.toMatchObject({
      reason: "AGENT_OFFLINE",
      metadata: { suspectSince: expect.stringMatching(/^\d{4}-.*Z$/) },
    });
    expect(await storyOf(quiet, status)).toEqual([]);
  });

  test("cannot be claimed by a service whose claim was judged before it became suspect", async () => {
    await quiet.createAgent("fading");
    using hold = quiet.gate.hold("commit-changes", "before", 1);
    const claimed = quiet.agents.updateStatus("fading", { status: "busy", holdMs: undefined }, undefined, quiet.by);
    const refusal = expect(claimed).rejects.toMatchObject({
      reason: "AGENT_OFFLINE",
      metadata: { suspectSince: expect.anything() },
    });
    await hold.arrived();
    await suspect("fading");
    hold.release();
    await refusal;
    expect(await storyOf(quiet, "fading")).toEqual([]);
  });

  test("can be claimed again after its next heartbeat", async () => {
    await quiet.createAgent("returning");
    await suspect("returning");
    await quiet.liveness.beat([alive("returning")], { clawIdentifier: undefined, leaseMs: 30_000 });
    const claimed = await quiet.agents.updateStatus(
      "returning",
      { status: "busy", holdMs: undefined },
      undefined,
      quiet.by,
    );
    expect(claimed.status).toBe("busy");
  });

  test("counts as suspect in the fleet, by status and claw", async () => {
    await quiet.createAgent("counted-1", "claw-counted");
    await quiet.createAgent("counted-2", "claw-counted");
    await suspect("counted-1");
    const fleet = await quiet.agents.fleet({ ...ALL, clawIdentifiers: ["claw-counted"] });
    expect(fleet.statuses).toEqual(new Map([["idle", 2n]]));
    expect(fleet.suspects).toEqual(new Map([["idle", 1n]]));
    expect(fleet.claws.get("claw-counted")?.suspects).toEqual(new Map([["idle", 1n]]));
    await quiet.query("UPDATE fleet_state SET brake_engaged_at = NULL");
    expect((await quiet.agents.fleet(ALL)).suspects).toEqual(new Map());
  });
});
