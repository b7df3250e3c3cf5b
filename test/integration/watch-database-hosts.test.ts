import { expect, test } from "vitest";
import { openDatabase } from "../../src/storage/database.ts";
import { DatabaseHosts } from "../../src/storage/database-hosts.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { administer, createTestDatabase } from "../support/cluster.ts";

/** The same database behind a list of two hosts, of which the first does not respond. */
function listed(url: string): string {
  return url.replace(/@([^/]+)\//, "@127.0.0.1:1,$1/");
}

test("every connection goes to the writable host of the list", async () => {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await createTestDatabase());
  expect(await migrate(listed(url))).toEqual([]);
  const database = openDatabase({
    url: `${listed(url)}${url.includes("?") ? "&" : "?"}target_session_attrs=read-write`,
    onIdleError: () => undefined,
  });
  stack.defer(() => database.close());
  for (const pool of [database.beats, database.commits, database.feed]) {
    expect((await pool.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  }
  expect(await database.knex("revision_counter").count({ count: "*" })).toMatchObject([{ count: 1n }]);
  const listener = database.newClient("listen");
  await listener.connect();
  await listener.query("LISTEN something");
  await listener.end();
});

test("the pool leaves a host that becomes read-only, and finds it again when it is writable", async () => {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await createTestDatabase());
  const name = new URL(url).pathname.slice(1);
  const hosts = new DatabaseHosts(listed(url));
  const [, second] = hosts.hosts;
  expect(await hosts.writable()).toEqual(second);
  const database = openDatabase({ url: listed(url), onIdleError: () => undefined });
  stack.defer(() => database.close());
  await database.feed.query("SELECT 1");
  // Like a standby: it is read-only.
  await administer(url, `ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await administer(
    url,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}' AND pid <> pg_backend_pid()`,
  );
  await expect(database.commits.query("SELECT 1")).rejects.toMatchObject({ code: "25006" });
  await expect(database.commits.query("SELECT 1")).rejects.toMatchObject({ code: "08001" });
  await administer(
    url,
    "SET default_transaction_read_only = off",
    `ALTER DATABASE ${name} RESET default_transaction_read_only`,
  );
  expect((await database.commits.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
});
