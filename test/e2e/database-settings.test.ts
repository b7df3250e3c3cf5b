import { Client } from "pg";
import { expect, test } from "vitest";
import { migrate } from "../../src/storage/migrations.ts";
import { administer } from "../support/cluster.ts";
import { tourContract } from "../support/contract-tour.ts";
import { openOwnedDatabase } from "../support/owned-database.ts";
import { startReplica } from "../support/service.ts";

/** What operators and other programs set on roles and databases. */
const SETTINGS = {
  DateStyle: "'German, DMY'",
  IntervalStyle: "'iso_8601'",
  TimeZone: "'Asia/Kolkata'",
  bytea_output: "'escape'",
  extra_float_digits: "-15",
  standard_conforming_strings: "off",
  backslash_quote: "off",
  array_nulls: "off",
  transform_null_equals: "on",
  client_encoding: "'LATIN1'",
  row_security: "off",
  default_transaction_isolation: "'serializable'",
  default_transaction_deferrable: "on",
  statement_timeout: "'500ms'",
  lock_timeout: "'1ms'",
  idle_in_transaction_session_timeout: "'5ms'",
  idle_session_timeout: "'200ms'",
  synchronous_commit: "off",
  search_path: "elsewhere",
  plan_cache_mode: "'force_custom_plan'",
  jit: "on",
  exit_on_error: "on",
  check_function_bodies: "off",
  quote_all_identifiers: "on",
  work_mem: "'64kB'",
  enable_indexscan: "off",
  "plpgsql.extra_errors": "'all'",
} as const;

/** On a role, sessions override it. On a database it means that the database is read-only. */
const OF_ROLES = { ...SETTINGS, default_transaction_read_only: "on" } as const;

test.for([
  { what: "a role", role: OF_ROLES },
  { what: "a database", database: SETTINGS },
  { what: "both, in different ways", role: { TimeZone: "'UTC'", DateStyle: "'SQL'" }, database: SETTINGS },
])("settings of $what that were there before the service change nothing", async (settings) => {
  await using database = await openOwnedDatabase(settings);
  await database.set();
  await migrate(database.url);
  await using server = await startReplica(database.url);
  await tourContract(server.addresses);
});

test("settings that come later change nothing, and another search path hides no table", async () => {
  await using database = await openOwnedDatabase({ role: OF_ROLES, database: SETTINGS });
  await migrate(database.url);
  await using first = await startReplica(database.url);
  await database.set();
  expect(await migrate(database.url)).toEqual([]);
  await using second = await startReplica(database.url);
  await tourContract(second.addresses);
  await tourContract(first.addresses);
});

test("the service keeps its schema where the search path chose it, also when the path changes", async () => {
  await using database = await openOwnedDatabase({});
  const owner = new URL(database.url).username;
  // The default search path begins with the schema of the role's name.
  await administer(database.url, `CREATE SCHEMA ${owner}`);
  await migrate(database.url);
  const client = new Client({ connectionString: database.url });
  await client.connect();
  try {
    const { rows } = await client.query(
      "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('agents', 'schema_migrations')",
    );
    expect(rows).toEqual([{ schemaname: owner }]);
    await client.query(`ALTER ROLE ${owner} SET search_path = public`);
  } finally {
    await client.end();
  }
  expect(await migrate(database.url)).toEqual([]);
  await using server = await startReplica(database.url);
  await tourContract(server.addresses);
});

test("a database with the tables in two schemas is rejected unless the search path chooses one", async () => {
  await using database = await openOwnedDatabase({});
  await migrate(database.url);
  const owner = new URL(database.url).username;
  await administer(
    database.url,
    `CREATE SCHEMA two AUTHORIZATION ${owner}`,
    "CREATE TABLE two.schema_migrations (LIKE schema_migrations)",
    "CREATE TABLE two.revision_counter (LIKE revision_counter)",
  );
  const choose = (schema: string) => administer(database.url, `ALTER ROLE ${owner} SET search_path = ${schema}`);
  await choose("pg_catalog");
  await expect(migrate(database.url)).rejects.toMatchObject({
    name: "UnusableDatabase",
    message: expect.stringMatching(
      /^The schemas public and two of the database each have the tables of this service: /,
    ),
  });
  await choose("public");
  expect(await migrate(database.url)).toEqual([]);
});
