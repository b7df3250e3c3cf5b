import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { expect, test } from "vitest";
import { assertMigratedAt, checkSchema, MigrationError, migrate } from "../../src/storage/migrations.ts";
import { createEmptyDatabase } from "../support/cluster.ts";
import { by, openStorage } from "../support/storage.ts";

const NAMES = readdirSync(new URL("../../migrations/", import.meta.url))
  .filter((file) => file.endsWith(".sql"))
  .map((file) => file.replace(/\.sql$/, ""))
  .sort();

async function query<Row extends object>(url: string, sql: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

test("an empty database gets the whole schema, and no migration twice", async () => {
  await using database = await createEmptyDatabase();
  expect(await migrate(database.url)).toEqual(NAMES);
  expect(await migrate(database.url)).toEqual([]);
  await using storage = openStorage(database.url);
  const agent = { agentId: "a", clawIdentifier: "c" };
  const created = await storage.users.create({ username: "u", email: null, displayName: "", agent }, by());
  expect(created.agent?.status).toBe("idle");
});

test("when several replicas start at once, one of them applies each migration", async () => {
  await using database = await createEmptyDatabase();
  const applied = await Promise.all(Array.from({ length: 5 }, () => migrate(database.url)));
  expect(applied.flat().sort()).toEqual(NAMES);
  expect(await query(database.url, "SELECT name FROM schema_migrations ORDER BY id")).toEqual(
    NAMES.map((name) => ({ name })),
  );
});

const ADD_UNKNOWN =
  "INSERT INTO schema_migrations (name, batch, migration_time) VALUES ('9999_from_the_future', 2, now())";

test.each([
  ["allows only newer programs", "UPDATE schema_compatibility SET compatible_from = '999.0.0'", "version 999.0.0"],
  ["has an unknown format", "UPDATE schema_compatibility SET format = 2, compatible_from = '0.0.1'", "the format 2"],
  ["does not say which programs it allows", "DROP TABLE schema_compatibility", "Start that version"],
  [
    "also lacks migrations of this program",
    "UPDATE schema_compatibility SET compatible_from = '0.0.1'; DELETE FROM schema_migrations WHERE name LIKE '0012%'",
    "lacks others (0012_functions_name_their_schema)",
  ],
])("rejects a newer database that %s, and leaves it unchanged", async (_, change, reason) => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  await query(database.url, ADD_UNKNOWN);
  await query(database.url, change);
  const before = await query(database.url, "SELECT * FROM schema_migrations");
  for (const use of [migrate, checkSchema, assertMigratedAt]) {
    const refusal: unknown = await use(database.url).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(MigrationError);
    expect(refusal).toHaveProperty("message", expect.stringContaining("9999_from_the_future"));
    expect(refusal).toHaveProperty("message", expect.stringContaining(reason));
  }
  expect(await query(database.url, "SELECT * FROM schema_migrations")).toEqual(before);
});

test("uses a newer database that allows this version, says so, and leaves it unchanged", async () => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  await query(database.url, ADD_UNKNOWN);
  await query(database.url, "UPDATE schema_compatibility SET compatible_from = '0.0.1'");
  const newer = { unknown: ["9999_from_the_future"], compatibleFrom: "0.0.1" };
  const told: unknown[] = [];
  expect(await migrate(database.url, (schema) => told.push(schema))).toEqual([]);
  expect(told).toEqual([newer]);
  expect(await checkSchema(database.url)).toEqual({ missing: [], newer });
  await assertMigratedAt(database.url);
  expect(await query(database.url, "SELECT FROM schema_migrations")).toHaveLength(NAMES.length + 1);
});

test("uses a database whose migrations it knows, whatever version the database names", async () => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  await query(database.url, "UPDATE schema_compatibility SET compatible_from = '999.0.0'");
  expect(await checkSchema(database.url)).toEqual({ missing: [], newer: null });
});

test("each migration from 0013 on says which programs may use the database, and the version never falls", async () => {
  const versions = NAMES.filter((name) => name >= "0013").map((name) => {
    const sql = readFileSync(new URL(`../../migrations/${name}.sql`, import.meta.url), "utf8");
    const statement =
      /^(?:UPDATE schema_compatibility SET compatible_from = |INSERT INTO schema_compatibility .*VALUES \(1, )'(\d+)\.(\d+)\.(\d+)'\)?;$/gm;
    const found = [...sql.matchAll(statement)].map((match) => match.slice(1).map(Number));
    expect(found, name).toHaveLength(1);
    return found[0]?.reduce((all, number) => all * 1_000_000 + number, 0) ?? 0;
  });
  expect(versions.length).toBeGreaterThan(0);
  expect(versions).toEqual(versions.toSorted((one, other) => one - other));
});

test("ignores a lock that a killed migration left behind", async () => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  await query(database.url, "DELETE FROM schema_migrations_lock");
  await query(database.url, "INSERT INTO schema_migrations_lock (is_locked) VALUES (1)");
  expect(await migrate(database.url)).toEqual([]);
});

test("a failed migration leaves no change, and can run again", async () => {
  await using database = await createEmptyDatabase();
  // Conflicts with a table of the first migration, which creates others before it.
  await query(database.url, "CREATE TABLE request_ids (taken text)");
  const failure: unknown = await migrate(database.url).catch((error: unknown) => error);
  expect(failure).toMatchObject({
    name: "MigrationError",
    message: 'The migration 0001_tables failed and changed nothing: relation "request_ids" already exists',
  });
  expect(await query(database.url, "SELECT to_regclass('users') AS users")).toEqual([{ users: null }]);
  await query(database.url, "DROP TABLE request_ids");
  expect(await migrate(database.url)).toEqual(NAMES);
});

test("a database that cannot be reached is an error, soon", async () => {
  await expect(migrate("postgres://nobody@127.0.0.1:1/nothing")).rejects.toThrow(/ECONNREFUSED/);
});

test("the functions find their tables without a search path", async () => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  const depending = await query(
    database.url,
    `SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
     WHERE p.pronamespace = 'public'::regnamespace AND p.prosqlbody IS NULL AND l.lanname IN ('sql', 'plpgsql')
       AND NOT coalesce(p.proconfig, '{}') @> '{"search_path=public, pg_temp"}'`,
  );
  expect(depending).toEqual([]);
  await using storage = openStorage(database.url);
  const agent = { agentId: "a", clawIdentifier: "c" };
  await storage.users.create({ username: "u", email: null, displayName: "", agent }, by());
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    await client.query("SET search_path = ''");
    for (const call of [
      "take_counter(0)",
      "take_counter(9000000000000000)",
      "declare_new_history()",
      "history_name()",
      "add_transition_partitions(9000000000000000)",
      "claim_request_id('service:test', 'r', 'f')",
      "commit_changes(1, '[]')",
    ]) {
      await client.query(`SELECT public.${call}`);
    }
    const partitions = await client.query(
      "SELECT DISTINCT relnamespace::regnamespace::text AS schema FROM pg_class WHERE relname LIKE 'agent_transitions%'",
    );
    expect(partitions.rows).toEqual([{ schema: "public" }]);
    await client.query("UPDATE public.agents SET claw_identifier = 'd'");
  } finally {
    await client.end();
  }
});

test("rejects a database with another encoding than UTF8, with what to do", async () => {
  await using database = await createEmptyDatabase();
  const name = `${new URL(database.url).pathname.slice(1)}_ascii`;
  await query(
    database.url,
    `CREATE DATABASE ${name} ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0`,
  );
  try {
    const url = new URL(database.url);
    url.pathname = name;
    await expect(migrate(url.href)).rejects.toMatchObject({
      name: "UnusableDatabase",
      message:
        "The database has the encoding SQL_ASCII, which cannot hold every name: create one with ENCODING 'UTF8' TEMPLATE template0, and set DATABASE_URL to it.",
    });
    expect(await query(url.href, "SELECT FROM pg_tables WHERE schemaname = 'public'")).toEqual([]);
  } finally {
    await query(database.url, `DROP DATABASE ${name} WITH (FORCE)`);
  }
});
