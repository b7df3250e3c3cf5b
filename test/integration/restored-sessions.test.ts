import { expect, inject, test } from "vitest";
import type { SessionStart } from "../../common/contract/enum-names.ts";
import { claimAgents } from "../../src/storage/lease-queries.ts";
import { administer, createTestDatabase } from "../support/cluster.ts";
import { copyDatabase, rowsOf, swapIn } from "../support/database-swap.ts";
import { openReplica } from "../support/replica.ts";
import { alive, reports, starting } from "../support/replica-stream.ts";
import { openStorage } from "../support/storage.ts";
import { until } from "../support/until.ts";

/** A database that can be restored to an older state of itself. */
async function createRestorable() {
  await using undo = new AsyncDisposableStack();
  const { adminUrl } = inject("cluster");
  const { url } = undo.use(await createTestDatabase());
  const name = new URL(url).pathname.slice(1);
  undo.defer(async () => {
    const others = await rowsOf<{ datname: string }>(
      adminUrl,
      "SELECT datname FROM pg_database WHERE starts_with(datname, $1)",
      [`${name}_`],
    );
    await administer(adminUrl, ...others.map(({ datname }) => `DROP DATABASE ${datname} WITH (FORCE)`));
  });
  const everything = undo.move();
  return {
    url,
    backUp: () => copyDatabase(adminUrl, name, `${name}_backup`),
    restore: () => swapIn(adminUrl, `${name}_backup`, name, `${name}_lost`),
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

const STARTS: readonly { what: string; instance: string; start: SessionStart | undefined }[] = [
  { what: "another process without a session start", instance: "process-2", start: undefined },
  { what: "another process that claimed it first", instance: "process-2", start: "first" },
  { what: "the process itself, which resumed its session", instance: "process-1", start: "resume" },
];

test.each(STARTS)("a restore does not take the agent from $what after the backup", { timeout: 60_000 }, async (row) => {
  const { instance, start } = row;
  await using database = await createRestorable();
  await using replica = await openReplica(database.url);
  const { agentId } = await replica.createAgent("agent-1");
  using former = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-1", generation: 1n });
  await former.say(reports(agentId, "idle"));
  await database.backUp();
  const beat = reports(agentId, "busy");
  using stream = replica.stream({ clawIdentifier: "claw-1", instanceId: instance, generation: 2n });
  await until("the new stream has it", async () => {
    const [result] = await stream.say(start === undefined ? beat : starting(start, beat));
    return result?.refusal === null;
  });
  await replica.untilStatus(agentId, "busy");
  await database.restore();

  await stream.acknowledgedUpTo(stream.send(beat));
  await replica.untilStatus(agentId, "busy", 20_000);
  await stream.say(beat);
  expect(stream.results.filter(({ refusal }) => refusal !== null)).toEqual([]);
  expect((await replica.history(agentId)).map(({ toStatus }) => toStatus)).toEqual(["idle", "busy"]);
  // The stream that lost the agent before the restore has still lost it.
  const [lost] = await former.say(reports(agentId, "idle"));
  expect(lost?.refusal).toMatchObject({ reason: "SESSION_SUPERSEDED" });
});

test.each([
  { what: "the same replica", same: true },
  { what: "another replica", same: false },
])("a restore lets a new stream of the holding process keep the agent when an older session at $what returns", {
  timeout: 60_000,
}, async ({ same }) => {
  await using database = await createRestorable();
  await using replica = await openReplica(database.url);
  await using second = await openReplica(database.url);
  const other = same ? replica : second;
  const { agentId } = await replica.createAgent("agent-1");
  using former = other.stream({ clawIdentifier: "claw-1", instanceId: "process-1", generation: 1n });
  await former.say(starting("first", reports(agentId, "idle")));
  await database.backUp();
  using stream = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-2", generation: 1n });
  await until("the new stream has it", async () => {
    const [result] = await stream.say(starting("first", reports(agentId, "busy")));
    return result?.refusal === null;
  });
  // By a change that is pushed to it: its next beat would be rejected.
  await until("the former stream is told", async () => {
    const [result] = await former.say(starting("first", alive(agentId)));
    return result?.refusal?.reason === "SESSION_SUPERSEDED";
  });
  stream.close();
  await database.restore();
  await until(
    "the gap is noted",
    async () => {
      const gaps = await replica
        .query("SELECT FROM revision_jumps WHERE reason = 'database_altered' OR reason = 'another_database'")
        .catch(() => []);
      return gaps.length > 0;
    },
    20_000,
  );

  await until(
    "the process has its agent again",
    async () => {
      using resumed = replica.stream({ clawIdentifier: "claw-1", instanceId: "process-2", generation: 2n });
      const [result] = await resumed.say(starting("resume", reports(agentId, "busy")));
      return result?.refusal === null;
    },
    10_000,
  );
});

test("a claim after a restore has no epoch of the lost history, also before any read of the log", async () => {
  await using database = await createRestorable();
  await using storage = openStorage(database.url);
  const user = { username: "agent-1", email: null, displayName: "" };
  await storage.users.create(
    { ...user, agent: { agentId: "agent-1", clawIdentifier: "claw-1" } },
    { actor: "service:test", request: undefined },
  );
  const claim = async (): Promise<bigint> => {
    const claims = [
      {
        agentId: "agent-1",
        clawIdentifier: undefined,
        instance: undefined,
        generation: 0n,
        fresh: true,
        resumes: false,
      },
    ];
    const { epochs } = await until("the database answers", () =>
      claimAgents(storage.database, 1, claims, 30_000).catch(() => undefined),
    );
    return [...epochs.values()][0] ?? 0n;
  };
  await claim();
  await database.backUp();
  const lost = [await claim(), await claim(), await claim()];
  await database.restore();
  const after = [await claim(), await claim(), await claim()];
  expect(after.filter((epoch) => lost.includes(epoch))).toEqual([]);
});
