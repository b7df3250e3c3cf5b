import { expect, inject, test } from "vitest";
import { declareNewHistory } from "../../src/storage/new-history.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";
import { administer, createTestDatabase, databaseUrl } from "../support/cluster.ts";
import { copyDatabase, rowsOf, swapIn } from "../support/database-swap.ts";
import { dump, hasPgDump } from "../support/restored-database.ts";
import { by } from "../support/storage.ts";
import { until } from "../support/until.ts";
import { WatchReader } from "../support/watch-reader.ts";
import { startWatchingReplica, type WatchingReplica } from "../support/watching-replica.ts";

/** Transitions before the backup, lost after it, and made after the restore: more than were lost. */
const [KEPT, LOST, AFTER] = [12, 20, 45];
const REFUSED = expect.stringMatching(/^REVISION_(COMPACTED|IN_FUTURE)$/);

async function create(replica: WatchingReplica, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    const agentId = `agent-${Math.random()}`;
    const agent = { agentId, clawIdentifier: "claw-a" };
    await replica.users.create({ username: agentId, email: null, displayName: "", agent }, by());
  }
}

async function revisionsOf(url: string): Promise<bigint[]> {
  const rows = await rowsOf<{ revision: string }>(
    url,
    "SELECT revision::text FROM agent_transitions ORDER BY agent_transitions.revision",
  );
  return rows.map(({ revision }) => BigInt(revision));
}

/** A database with a replica, with a backup that is older than the last transitions sent to watchers. */
async function startScene() {
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
  let stack = undo;
  const start = async (where = url) => {
    const replica = await startWatchingReplica(where);
    let stopped: Promise<void> | undefined;
    const stop = () => {
      stopped ??= replica[Symbol.asyncDispose]();
      return stopped;
    };
    stack.defer(stop);
    return { ...replica, stop };
  };
  const replica = await start();
  await create(replica, KEPT);
  const kept = (await revisionsOf(url)).at(-1) ?? 0n;
  const everything = undo.move();
  stack = everything;
  return {
    adminUrl,
    url,
    name,
    replica,
    start,
    /** The newest revision of the backup. */
    kept,
    /** Makes the transitions that the backup lacks. @returns their revisions */
    async goOn(): Promise<readonly bigint[]> {
      await create(replica, LOST);
      const lost = (await revisionsOf(url)).filter((revision) => revision > kept);
      await using reader = new WatchReader(replica.watches, { afterRevision: kept });
      await reader.until(({ revisions }) => revisions.length === LOST);
      expect(reader.revisions).toEqual(lost);
      return lost;
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

async function refusalAt(replica: WatchingReplica, afterRevision: bigint): Promise<unknown> {
  await using reader = new WatchReader(replica.watches, { afterRevision, bookmarkMs: 10 });
  return await reader.end();
}

/** Before the first transition after the restore, and after more transitions than were lost. */
async function expectWatchersRestart(url: string, replica: WatchingReplica, kept: bigint, lost: readonly bigint[]) {
  for (const revision of [lost[0], lost.at(-1)]) {
    expect(await refusalAt(replica, revision ?? 0n)).toMatchObject({ reason: REFUSED });
  }
  await create(replica, AFTER);
  const after = (await revisionsOf(url)).filter((revision) => revision > kept);
  expect(after).toHaveLength(AFTER);
  expect(after.filter((revision) => lost.includes(revision))).toEqual([]);
  for (const revision of lost)
    expect(await refusalAt(replica, revision)).toMatchObject({ reason: "REVISION_COMPACTED" });
  await using reader = new WatchReader(replica.watches, { afterRevision: kept });
  await reader.until(({ revisions }) => revisions.length === AFTER);
  expect(reader.revisions).toEqual(after);
}

/** A new database under the same name. */
async function recreate(adminUrl: string, name: string): Promise<void> {
  await administer(adminUrl, `DROP DATABASE ${name} WITH (FORCE)`, `CREATE DATABASE ${name} TEMPLATE template0`);
}

async function reasonsOf(url: string): Promise<string[]> {
  const rows = await rowsOf<{ reason: string }>(url, "SELECT reason FROM revision_jumps ORDER BY to_revision");
  return rows.map(({ reason }) => reason);
}

test("a dump restored into the same server under the same name is another history", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, kept } = scene;
  process.stderr.write(
    `dumps are made ${(await hasPgDump(url)) ? "with pg_dump" : "row by row: there is no pg_dump for this server"}\n`,
  );
  await using backup = await dump(url);
  const lost = await scene.goOn();
  await scene.replica.stop();
  await recreate(adminUrl, name);
  await backup.restore(url);
  await expectWatchersRestart(url, await scene.start(), kept, lost);
  expect(await reasonsOf(url)).toEqual(["row_copied"]);
});

test("a dump restored into another database is another history", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, kept } = scene;
  await using backup = await dump(url);
  const lost = await scene.goOn();
  await administer(adminUrl, `CREATE DATABASE ${name}_other TEMPLATE template0`);
  const other = databaseUrl(adminUrl, `${name}_other`);
  await backup.restore(other);
  await expectWatchersRestart(other, await scene.start(other), kept, lost);
});

test("rows restored into existing tables are another history", async () => {
  await using scene = await startScene();
  const { url, kept } = scene;
  const backup = await rowsOf<{ revision: string }>(url, "SELECT revision::text FROM revision_counter");
  const lost = await scene.goOn();
  await scene.replica.stop();
  // Like pg_restore --data-only, or a copy of the tables: the rows are the same, other transactions wrote them.
  const history = await rowsOf<object>(url, "SELECT to_jsonb(h) AS row FROM revision_history h");
  await rowsOf(url, "DELETE FROM agent_liveness WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "DELETE FROM agents WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "DELETE FROM agent_transitions WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "UPDATE revision_counter SET revision = $1", [backup[0]?.revision]);
  await rowsOf(url, "DELETE FROM revision_history");
  await rowsOf(
    url,
    "INSERT INTO revision_history SELECT h.* FROM jsonb_populate_record(NULL::revision_history, ($1::jsonb) -> 'row') h",
    [JSON.stringify(history[0])],
  );
  await expectWatchersRestart(url, await scene.start(), kept, lost);
  expect(await reasonsOf(url)).toEqual(["row_copied"]);
});

test("a copy that replaces the database by renaming is another history", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, kept } = scene;
  await copyDatabase(adminUrl, name, `${name}_copy`);
  const lost = await scene.goOn();
  await scene.replica.stop();
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  await expectWatchersRestart(url, await scene.start(), kept, lost);
});

test("a database that is renamed back to its name is another history than the copy in between", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name } = scene;
  await copyDatabase(adminUrl, name, `${name}_copy`);
  await scene.goOn();
  const kept = (await revisionsOf(url)).at(-1) ?? 0n;
  await scene.replica.stop();
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  const between = await scene.start();
  await create(between, LOST);
  const ofTheCopy = (await revisionsOf(url)).slice(-LOST);
  await between.stop();
  await swapIn(adminUrl, `${name}_kept`, name, `${name}_copy`);
  await expectWatchersRestart(url, await scene.start(), kept, ofTheCopy);
});

test("a running replica and its watchers detect a dump that is restored under it", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, kept, replica } = scene;
  await using backup = await dump(url);
  const lost = await scene.goOn();
  await using follower = new WatchReader(replica.watches, { afterRevision: lost.at(-1) ?? 0n, bookmarkMs: 10 });
  await follower.until(({ messages }) => messages.length > 0);
  await recreate(adminUrl, name);
  await backup.restore(url);
  expect(await follower.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
  await expectWatchersRestart(url, replica, kept, lost);
});

test("a running replica detects a copy that replaces the database, also when another replica writes at once", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, kept, replica } = scene;
  await copyDatabase(adminUrl, name, `${name}_copy`);
  const lost = await scene.goOn();
  await using follower = new WatchReader(replica.watches, { afterRevision: lost.at(-1) ?? 0n, bookmarkMs: 10 });
  await follower.until(({ messages }) => messages.length > 0);
  // Another replica continues to write: the database may be ahead of its former state when this one reads it.
  const other = await scene.start();
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  await until(
    "the other one is back",
    async () =>
      await create(other, 1)
        .then(() => true)
        .catch(() => false),
  );
  await create(other, LOST);
  expect(await follower.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
  const already = (await revisionsOf(url)).filter((revision) => revision > kept);
  expect(already.filter((revision) => lost.includes(revision))).toEqual([]);
  await expectWatchersRestart(url, replica, already.at(-1) ?? 0n, lost);
});

test("when several replicas detect a restore at once, one of them creates the revision gap", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, replica } = scene;
  // First: it may detect the alteration of the database for the copy before the copy is made.
  await replica.stop();
  await copyDatabase(adminUrl, name, `${name}_copy`);
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  const replicas = await Promise.all([scene.start(), scene.start(), scene.start()]);
  await Promise.all(replicas.map((one) => create(one, 3)));
  expect(await reasonsOf(url)).toEqual(["another_database"]);
});

test("when nothing was lost, every watcher resumes from its position", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, replica } = scene;
  const newest = (await revisionsOf(url)).at(-1) ?? 0n;
  const readers = [newest, newest - 3n].map(
    (afterRevision) => new WatchReader(replica.watches, { afterRevision, bookmarkMs: 10 }),
  );
  for (const reader of readers) await reader.until(({ revision }) => revision === newest);
  await copyDatabase(adminUrl, name, `${name}_copy`);
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  await until(
    "the replica is back",
    async () =>
      await create(replica, 1)
        .then(() => true)
        .catch(() => false),
  );
  const [first = 0n] = (await revisionsOf(url)).slice(-1);
  expect(first).toBeGreaterThan(newest + 1n);
  for (const reader of readers) {
    await reader.until(({ revision }) => revision >= first);
    expect(reader.revisions.at(-1)).toBe(first);
    await reader[Symbol.asyncDispose]();
  }
});

test("a declared new history starts beyond all assigned revisions, also by a clock that was ahead, each time", async () => {
  await using scene = await startScene();
  const { url, kept, replica } = scene;
  const lost = await scene.goOn();
  await replica.stop();
  // A case that no copy of a database's files shows: the restored memory of a whole machine, with the server in
  // it.
  await rowsOf(url, "DELETE FROM agent_liveness WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "DELETE FROM agents WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "DELETE FROM agent_transitions WHERE revision > $1", [kept.toString()]);
  await rowsOf(url, "UPDATE revision_counter SET revision = $1", [kept.toString()]);
  const first = await declareNewHistory(url);
  expect(first.from).toBe(kept);
  const tomorrow = BigInt(Date.now() + 86_300_000) * 1_024n;
  expect(first.to).toBeGreaterThan(tomorrow);
  const second = await declareNewHistory(url);
  expect(second.from).toBe(first.to);
  expect(second.to).toBeGreaterThan(first.to);
  expect(await reasonsOf(url)).toEqual(["declared", "declared"]);
  const again = await scene.start();
  await expectWatchersRestart(url, again, kept, lost);
  expect((await new TransitionLog(again.database.feed).newest()) > second.to).toBe(true);
});

test("a new history declared under a running replica reaches its watchers", async () => {
  await using scene = await startScene();
  const { url, replica } = scene;
  const newest = (await revisionsOf(url)).at(-1) ?? 0n;
  await using reader = new WatchReader(replica.watches, { afterRevision: newest, bookmarkMs: 10 });
  const { from, to } = await declareNewHistory(url);
  expect(from).toBe(newest);
  await reader.until(({ revision }) => revision === to);
  expect(await refusalAt(replica, newest + 1n)).toMatchObject({ reason: "REVISION_COMPACTED" });
});

test("epochs and replica numbers of a lost history are not assigned again", async () => {
  await using scene = await startScene();
  const { adminUrl, url, name, replica } = scene;
  const next = async () =>
    await rowsOf<{ epoch: string; replica: string }>(
      url,
      "SELECT nextval('agent_epochs')::text AS epoch, nextval('replicas_id_seq')::text AS replica",
    );
  await copyDatabase(adminUrl, name, `${name}_copy`);
  await replica.stop();
  let [last] = await next();
  for (let n = 0; n < 50; n += 1) [last] = await next();
  await swapIn(adminUrl, `${name}_copy`, name, `${name}_kept`);
  await create(await scene.start(), 1);
  const [first] = await next();
  expect(BigInt(first?.epoch ?? 0)).toBeGreaterThan(BigInt(last?.epoch ?? 0));
  expect(BigInt(first?.replica ?? 0)).toBeGreaterThan(BigInt(last?.replica ?? 0));
});
