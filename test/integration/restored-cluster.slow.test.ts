import { appendFile, chmod, chown, cp, mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { dataFolder } from "../../packages/embedded-postgres/src/data-folder.ts";
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../../packages/embedded-postgres/src/embedded-postgres.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { rowsOf } from "../support/database-swap.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { own } from "../support/postgres-pair.ts";
import { by } from "../support/storage.ts";
import { until } from "../support/until.ts";
import { WatchReader } from "../support/watch-reader.ts";
import { startWatchingReplica, type WatchingReplica } from "../support/watching-replica.ts";

const [KEPT, LOST, AFTER] = [12, 20, 45];
const LONG_MS = 120_000;
const quiet = { info() {}, warn() {} };

/** A PostgreSQL server of the test, with a replica for its lifetime. */
async function startScene() {
  await using undo = new AsyncDisposableStack();
  const folder = await temporaryFolder("restored");
  undo.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  await chmod(folder, 0o711);
  const dataDir = join(folder, "data");
  const archive = join(folder, "archive");
  await mkdir(archive);
  let postgres: EmbeddedPostgres | undefined;
  let replica: WatchingReplica | undefined;
  const stop = async () => {
    await replica?.[Symbol.asyncDispose]();
    await postgres?.stop();
    [postgres, replica] = [undefined, undefined];
  };
  undo.defer(stop);
  const start = async (settings: Record<string, string> = {}) => {
    postgres = await startEmbeddedPostgres({ dataDir, log: quiet, settings: { fsync: "off", ...settings } });
    const url = postgres.connectionString;
    await until("it takes writes", async () => {
      const [row] = await rowsOf<{ recovering: boolean }>(url, "SELECT pg_is_in_recovery() AS recovering");
      return row?.recovering === false;
    });
    await migrate(url);
    replica = await startWatchingReplica(url);
    return { url, replica };
  };
  const everything = undo.move();
  return { folder, dataDir, archive, start, stop, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

async function create(replica: WatchingReplica, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    const agentId = `agent-${Math.random()}`;
    await replica.users.create(
      { username: agentId, email: null, displayName: "", agent: { agentId, clawIdentifier: "claw-a" } },
      by(),
    );
  }
}

async function revisionsOf(url: string): Promise<bigint[]> {
  const rows = await rowsOf<{ revision: string }>(
    url,
    "SELECT revision::text FROM agent_transitions t ORDER BY t.revision",
  );
  return rows.map(({ revision }) => BigInt(revision));
}

async function refusalAt(replica: WatchingReplica, afterRevision: bigint): Promise<unknown> {
  await using reader = new WatchReader(replica.watches, { afterRevision, bookmarkMs: 10 });
  return await reader.end();
}

async function expectWatchersRestart(url: string, replica: WatchingReplica, kept: bigint, lost: readonly bigint[]) {
  expect(lost).toHaveLength(LOST);
  expect(await refusalAt(replica, lost.at(-1) ?? 0n)).toMatchObject({ reason: "REVISION_COMPACTED" });
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

/** Replaces a data folder by an earlier copy. */
async function putBack(copy: string, dataDir: string): Promise<void> {
  const original = await stat(dataDir);
  await rm(dataDir, { recursive: true, force: true });
  await cp(copy, dataDir, { recursive: true, preserveTimestamps: true });
  await chown(dataDir, original.uid, original.gid);
  await own(copy, dataDir);
}

/** A copy of the data folder of a stopped server; the owner of its files stays PostgreSQL's account. */
async function copyOfFolder(dataDir: string, copy: string): Promise<void> {
  await cp(dataDir, copy, { recursive: true, preserveTimestamps: true });
  await own(dataDir, copy);
}

test(
  "a restored copy of the data folder, such as a disk snapshot, is another history",
  async () => {
    await using scene = await startScene();
    const { folder, dataDir } = scene;
    const first = await scene.start();
    await create(first.replica, KEPT);
    const kept = (await revisionsOf(first.url)).at(-1) ?? 0n;
    await scene.stop();
    await copyOfFolder(dataDir, join(folder, "copy"));
    const second = await scene.start();
    await create(second.replica, LOST);
    const lost = (await revisionsOf(second.url)).filter((revision) => revision > kept);
    await scene.stop();
    await putBack(join(folder, "copy"), dataDir);
    const third = await scene.start();
    await expectWatchersRestart(third.url, third.replica, kept, lost);
    expect(await rowsOf(third.url, "SELECT reason FROM revision_jumps ORDER BY to_revision DESC LIMIT 1")).toEqual([
      { reason: "server_started" },
    ]);
  },
  LONG_MS,
);

test(
  "a restored disk of a crashed server is another history to a replica that stays up",
  async () => {
    await using scene = await startScene();
    const { folder, dataDir } = scene;
    const first = await scene.start();
    await create(first.replica, KEPT);
    const kept = (await revisionsOf(first.url)).at(-1) ?? 0n;
    await scene.stop();
    await copyOfFolder(dataDir, join(folder, "copy"));
    let now: string;
    const serve = async () => {
      const postgres = await startEmbeddedPostgres({ dataDir, log: quiet, settings: { fsync: "off" } });
      now = postgres.connectionString;
      return postgres;
    };
    await using second = await serve();
    await using proxy = await FaultProxy.open(() => [Number(new URL(now).port)]);
    const through = new URL(second.connectionString);
    through.port = String(proxy.port);
    await using replica = await startWatchingReplica(through.href);
    await create(replica, LOST);
    const lost = (await revisionsOf(second.connectionString)).filter((revision) => revision > kept);
    await using follower = new WatchReader(replica.watches, { afterRevision: lost.at(-1) ?? 0n, bookmarkMs: 10 });
    await follower.until(({ messages }) => messages.length > 0);
    process.kill(second.pid, "SIGQUIT");
    await second.ended;
    await second.stop();
    await putBack(join(folder, "copy"), dataDir);
    await using third = await serve();
    expect(await follower.end()).toMatchObject({ reason: "REVISION_COMPACTED" });
    await expectWatchersRestart(third.connectionString, replica, kept, lost);
  },
  LONG_MS,
);

test(
  "a recovery to a point in time is another history",
  async () => {
    await using scene = await startScene();
    const { folder, dataDir, archive } = scene;
    await scene.start();
    await scene.stop();
    const { uid, gid } = await stat(dataFolder(dataDir).cluster);
    await chown(archive, uid, gid);
    await copyOfFolder(dataDir, join(folder, "base"));
    const archiving = { archive_mode: "on", archive_command: `cp %p ${archive}/%f` };
    const first = await scene.start(archiving);
    await create(first.replica, KEPT);
    const kept = (await revisionsOf(first.url)).at(-1) ?? 0n;
    const [target] = await rowsOf<{ lsn: string }>(first.url, "SELECT pg_current_wal_insert_lsn() AS lsn");
    await create(first.replica, LOST);
    const lost = (await revisionsOf(first.url)).filter((revision) => revision > kept);
    const [segment] = await rowsOf<{ name: string }>(first.url, "SELECT pg_walfile_name(pg_switch_wal()) AS name");
    await until("the log is archived", async () => (await readdir(archive)).includes(segment?.name ?? ""));
    await scene.stop();
    await putBack(join(folder, "base"), dataDir);
    const { cluster } = dataFolder(dataDir);
    await writeFile(join(cluster, "recovery.signal"), "");
    await appendFile(
      join(cluster, "postgresql.auto.conf"),
      `\nrestore_command = 'cp ${archive}/%f %p'\nrecovery_target_lsn = '${target?.lsn}'\nrecovery_target_action = 'promote'\n`,
    );
    await own(join(folder, "base"), dataDir);
    const second = await scene.start(archiving);
    expect(await revisionsOf(second.url)).toContain(kept);
    await expectWatchersRestart(second.url, second.replica, kept, lost);
  },
  LONG_MS,
);
