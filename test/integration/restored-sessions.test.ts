import { expect, inject, test } from "vitest";
import type { SessionStart } from "../../src/domain/session-start.ts";
import { claimAgents } from "../../src/storage/liveness.ts";
import { administer, createTestDatabase } from "../support/cluster.ts";
import { copyDatabase, rowsOf, swapIn } from "../support/database-swap.ts";
import { openReplica } from "../support/replica.ts";
import { reports, starting } from "../support/replica-stream.ts";
import { openStorage } from "../support/storage.ts";
import { until } from "../support/until.ts";

/** A database that can be put back to an older state of itself. */
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
  { what: "another process that does not say why it beats", instance: "process-2", start: undefined },
  { what: "another process that claimed it first", instance: "process-2", start: "first" },
  { what: "a process that resumed its session", instance: "process-1", start: "resume" },
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

  await stream.acknowledgedUpTo(stream.send(beat), 20_000);
  await replica.untilStatus(agentId, "busy", 20_000);
  await stream.say(beat);
  expect(stream.results.filter(({ refusal }) => refusal !== null)).toEqual([]);
  expect((await replica.history(agentId)).map(({ toStatus }) => toStatus)).toEqual(["idle", "busy"]);
  // The stream that lost it before the restore is still the one that lost it.
  const [lost] = await former.say(reports(agentId, "idle"));
  expect(lost?.refusal).toMatchObject({ reason: "SESSION_SUPERSEDED" });
});

test("a claim after a restore has no epoch of the lost history, though nobody has read the log since", async () => {
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
