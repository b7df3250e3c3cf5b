import pg from "pg";
import { pino } from "pino";
import { expect, type TestContext, test } from "vitest";
import { openDatabase } from "../../src/storage/database.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { Notifications } from "../../src/storage/notifications.ts";
import { administer, createEmptyDatabase, createTestDatabase } from "../support/cluster.ts";
import { tourContract } from "../support/contract-tour.ts";
import { startPgbouncer, whyNoPgbouncer } from "../support/pgbouncer.ts";
import { openStage } from "../support/program.ts";
import { startReplica } from "../support/service.ts";
import { until } from "../support/until.ts";

/** Skips a test where PgBouncer is missing, with the reason in the report. */
function needPooler({ skip }: TestContext): void {
  const why = whyNoPgbouncer();
  if (why !== undefined) skip(why);
}

test("the service migrates and serves through PgBouncer in session mode", async (context) => {
  needPooler(context);
  await using database = await createEmptyDatabase();
  await using pooler = await startPgbouncer(database.url, { pool_mode: "session", default_pool_size: 60 });
  expect(await migrate(pooler.url)).not.toEqual([]);
  await using one = await startReplica(pooler.url);
  await using other = await startReplica(pooler.url);
  await tourContract(one.addresses);
  await tourContract(other.addresses);
});

test.for(["transaction", "statement"])("PgBouncer in %s mode is rejected, with what to do", async (mode, context) => {
  needPooler(context);
  await using stage = await openStage();
  await using database = await createTestDatabase();
  await using pooler = await startPgbouncer(database.url, { pool_mode: mode });
  for (const command of [["serve"], ["migrate"], ["migrate", "--new-history"], ["tokens", "list"]]) {
    const ending = await stage.program(command, { env: { DATABASE_URL: pooler.url } }).ended;
    expect(ending).toMatchObject({ code: 1, stdout: "" });
    expect(ending.stderr).toBe(
      "DATABASE_URL names a connection pooler (such as PgBouncer) in transaction or statement mode, and this service needs sessions of its own: set pool_mode = session for this database in the pooler, or set DATABASE_URL to PostgreSQL itself.\n",
    );
  }
});

test.for([
  0, 1,
])("transaction mode is recognised when the pooler lends its connections in turn (%i)", async (roundRobin, context) => {
  needPooler(context);
  await using database = await createTestDatabase();
  await using pooler = await startPgbouncer(database.url, {
    pool_mode: "transaction",
    server_round_robin: roundRobin,
    min_pool_size: 5,
  });
  for (let attempt = 0; attempt < 5; attempt += 1) {
    await expect(migrate(pooler.url)).rejects.toMatchObject({ name: "UnusableDatabase" });
  }
});

test("a pooler that does not clean up after its clients leaves nothing in the sessions of the service", async (context) => {
  needPooler(context);
  await using database = await createTestDatabase();
  await using pooler = await startPgbouncer(database.url, {
    pool_mode: "session",
    server_reset_query: "",
    ignore_startup_parameters: "extra_float_digits",
    default_pool_size: 30,
  });
  const other = new pg.Client({ connectionString: pooler.url });
  await other.connect();
  await other.query({ name: "read-log-position", text: "SELECT 'of another client'" });
  for (const left of [
    "SET TimeZone = 'Asia/Tokyo'",
    "SET DateStyle = 'German'",
    "SET search_path = pg_catalog",
    "SET default_transaction_isolation = serializable",
    "SET statement_timeout = '20ms'",
    "SET bytea_output = 'escape'",
    "CREATE TEMP TABLE agents (nothing int)",
    "LISTEN everything",
    "SELECT pg_advisory_lock(1)",
  ]) {
    await other.query(left);
  }
  const { rows } = await other.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  await other.end();

  await using server = await startReplica(pooler.url);
  const direct = new pg.Client({ connectionString: database.url });
  await direct.connect();
  try {
    const used = await direct.query<{ name: string }>(
      "SELECT application_name AS name FROM pg_stat_activity WHERE pid = $1",
      [rows[0]?.pid],
    );
    expect(used.rows[0]?.name).toMatch(/^harborforge-agents /);
    const locks = await direct.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = $1", [rows[0]?.pid]);
    expect(locks.rowCount).toBe(0);
  } finally {
    await direct.end();
  }
  await tourContract(server.addresses);
});

test("a pooler that leaves session mode under a replica makes it not ready, until it is back", async (context) => {
  needPooler(context);
  await using database = await createTestDatabase();
  const { username } = new URL(database.url);
  await using pooler = await startPgbouncer(database.url, {
    pool_mode: "session",
    default_pool_size: 30,
    admin_users: username,
  });
  await using server = await startReplica(pooler.url);
  const console = new URL(pooler.url);
  console.pathname = "/pgbouncer";
  const setMode = async (mode: string): Promise<void> => {
    await administer(console.href, `SET pool_mode = '${mode}'`);
    const name = new URL(database.url).pathname.slice(1);
    await administer(
      database.url,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}' AND pid <> pg_backend_pid()`,
    );
  };
  const readyz = async (): Promise<string> => (await fetch(`http://${server.addresses.http}/readyz`)).text();
  await setMode("transaction");
  await until("the reason is named", async () =>
    (await readyz()).includes("the database changes sessions: its connection pooler is not in session mode"),
  );
  await setMode("session");
  await until("the replica is ready", async () => (await readyz()).startsWith("ready\n"));
  await tourContract(server.addresses);
});

test("notifications of other replicas arrive through a session of the pooler", async (context) => {
  needPooler(context);
  await using undo = new AsyncDisposableStack();
  const testDatabase = undo.use(await createTestDatabase());
  const pooler = undo.use(await startPgbouncer(testDatabase.url, { pool_mode: "session" }));
  const hints: number[] = [0, 0];
  const [one] = [0, 1].map((n) => {
    const database = openDatabase({ url: pooler.url, onIdleError: () => undefined });
    undo.defer(() => database.close());
    const notifications = new Notifications({
      database,
      log: pino({ level: "silent" }),
      onHint: () => {
        hints[n] = (hints[n] ?? 0) + 1;
      },
    });
    undo.defer(() => notifications.close());
    notifications.start();
    return notifications;
  });
  // The first hint says that it listens.
  await until("both listen", () => hints.every((count) => count > 0));
  const before = hints[1] ?? 0;
  one?.notify();
  await until("the other one is notified", () => (hints[1] ?? 0) > before);
});

test("a connection whose settings were changed gets them again, and one that lost its session is replaced", async () => {
  await using database = await createTestDatabase();
  const opened = openDatabase({ url: database.url, onIdleError: () => undefined });
  try {
    const client = await opened.feed.connect();
    const zone = async () => (await client.query<{ TimeZone: string }>("SHOW TimeZone")).rows[0]?.TimeZone;
    const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    await client.query("SET TimeZone = 'Asia/Tokyo'");
    await until("the settings are in force again", async () => (await zone()) === "UTC");
    await client.query("DISCARD ALL");
    client.release();
    const pidNow = async () => {
      const found = await opened.feed.query<{ pid: number }>("SELECT pg_backend_pid() AS pid").catch(() => undefined);
      return found?.rows[0]?.pid;
    };
    await until("the connection is replaced", async () => ![undefined, rows[0]?.pid].includes(await pidNow()));
    expect((await opened.feed.query("SHOW TimeZone")).rows).toEqual([{ TimeZone: "UTC" }]);
  } finally {
    await opened.close();
  }
});
