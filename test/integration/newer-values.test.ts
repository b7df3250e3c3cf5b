import { expect, test } from "vitest";
import { EVERY_AGENT } from "../../src/domain/filter.ts";
import { KEEP_LEASE, memberOf } from "../../src/storage/agent-change.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica } from "../support/replica.ts";
import { alive, goodbye, reports } from "../support/replica-stream.ts";
import { by, refused } from "../support/storage.ts";
import { until } from "../support/until.ts";
import { WatchReader } from "../support/watch-reader.ts";
import { startWatchingReplica } from "../support/watching-replica.ts";

/** What the migrations of a newer version do to the checks that know all values. */
const NEWER_SCHEMA = `
  ALTER TABLE agents DROP CONSTRAINT agents_status_known, DROP CONSTRAINT agents_exhaust_reason_known;
  ALTER TABLE agent_transitions DROP CONSTRAINT agent_transitions_cause_known;`;

async function openScene() {
  await using undo = new AsyncDisposableStack();
  const { url } = undo.use(await createTestDatabase());
  const replica = undo.use(await openReplica(url));
  const watching = undo.use(await startWatchingReplica(url, { replica: 2 }));
  await replica.query(NEWER_SCHEMA);
  for (const agentId of ["newer", "exhausted", "known"]) await replica.createAgent(agentId);
  const reader = undo.use(new WatchReader(watching.watches));
  await until("the snapshot", () => reader.snapshot !== undefined);
  const everything = undo.move();
  return { replica, watching, reader, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

/** A change as a newer version commits it. */
async function commitNewer(replica: Replica, agentId: string, values: object): Promise<void> {
  const agent = await replica.agents.get({ agentId });
  const member = memberOf(
    0,
    { kind: "update", agent, cause: "service", lease: KEEP_LEASE },
    "service:newer",
    undefined,
  );
  const rows = await replica.query<{ outcome: string }>(
    "SELECT outcome FROM commit_changes(1, $1)",
    JSON.stringify([{ ...member, ...values }]),
  );
  expect(rows).toEqual([{ outcome: "committed" }]);
}

const RESTING = { cause: "rested", status: "resting" };
const QUOTA = {
  cause: "rested",
  status: "exhausted",
  exhaustion: "set",
  exhaust_reason: "quota",
  backoff_steps: 0,
  recovery_after_ms: 600_000,
};

test("watches, lists and counts go on over causes, statuses and reasons of a newer version, as unknown", async () => {
  await using scene = await openScene();
  const { replica, reader, watching } = scene;
  await commitNewer(replica, "newer", RESTING);
  await commitNewer(replica, "exhausted", QUOTA);
  await replica.agents.updateStatus("known", { status: "busy", holdMs: undefined }, undefined, by());
  await until("all changes", () => reader.changes.length >= 3);
  expect(reader.changes.map(({ transition }) => transition)).toMatchObject([
    { agentId: "newer", cause: "unknown", toStatus: "unknown" },
    { agentId: "exhausted", cause: "unknown", toStatus: "exhausted", exhaustion: { reason: "unknown" } },
    { agentId: "known", cause: "service", toStatus: "busy" },
  ]);
  expect(reader.error).toBeUndefined();
  await using late = new WatchReader(watching.watches);
  await until("the late snapshot", () => late.snapshot !== undefined);
  expect(late.snapshot).toEqual([...reader.set.values()].map(({ text }) => text).sort());
  const { rows } = await replica.agents.list(EVERY_AGENT, { after: undefined, limit: 10 });
  expect(rows).toMatchObject([
    { agentId: "newer", status: "unknown" },
    { agentId: "exhausted", status: "exhausted", exhaustion: { reason: "unknown" } },
    { agentId: "known", status: "busy" },
  ]);
  const { statuses } = await replica.agents.fleet(EVERY_AGENT);
  expect(statuses).toEqual(
    new Map([
      ["unknown", 1n],
      ["exhausted", 1n],
      ["busy", 1n],
    ]),
  );
  const query = { agentId: "newer", afterRevision: 0n, newestFirst: true, after: undefined, upTo: undefined, limit: 1 };
  expect((await replica.agents.transitions(query)).rows).toMatchObject([{ cause: "unknown", toStatus: "unknown" }]);
});

test("an agent in a status of a newer version keeps it: beats renew its lease, a move keeps it, only its end changes it", async () => {
  await using scene = await openScene();
  const { replica, reader } = scene;
  await commitNewer(replica, "newer", RESTING);
  const stored = async () => {
    const [row] = await replica.query<{ status: string }>("SELECT status FROM agents WHERE agent_id = 'newer'");
    return row?.status;
  };
  using stream = replica.stream();
  await stream.say(alive("newer"), alive("known"));
  expect(await stored()).toBe("resting");
  const { revision } = await replica.agents.get({ agentId: "newer" });
  const results = await stream.say(reports("newer", "busy", revision), reports("known", "busy"));
  expect(results).toMatchObject([{ agentId: "newer", status: "unknown", refusal: { reason: "REPORT_OUTDATED" } }, {}]);
  expect(await stored()).toBe("resting");
  expect(await replica.agents.get({ agentId: "known" })).toMatchObject({ status: "busy" });
  const claim = replica.agents.updateStatus("newer", { status: "busy", holdMs: undefined }, undefined, by());
  await expect(claim).rejects.toMatchObject(refused("DATABASE_UNAVAILABLE"));
  await replica.agents.move("newer", "claw-2", by());
  expect(await stored()).toBe("resting");
  using other = replica.stream();
  await other.say(alive("newer"));
  await other.say(goodbye("newer"));
  expect(await stored()).toBe("offline");
  await until("the goodbye", () => reader.changes.some(({ transition }) => transition.cause === "goodbye"));
});

test("an exhaustion with a reason of a newer version ends by a report, and by its recovery", async () => {
  await using scene = await openScene();
  const { replica } = scene;
  await commitNewer(replica, "exhausted", QUOTA);
  await commitNewer(replica, "known", { ...QUOTA, recovery_after_ms: 1 });
  await until("the recovery", async () => (await replica.agents.get({ agentId: "known" })).status === "idle");
  using stream = replica.stream();
  await stream.say(reports("exhausted", "idle"));
  expect(await replica.agents.get({ agentId: "exhausted" })).toMatchObject({ status: "idle", exhaustion: null });
});
