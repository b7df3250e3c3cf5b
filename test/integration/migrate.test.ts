import { readdirSync } from "node:fs";
import pg from "pg";
import { expect, test } from "vitest";
import { MigrationError, migrate } from "../../src/storage/migrations.ts";
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

test("rejects a database that a newer version migrated, and leaves it unchanged", async () => {
  await using database = await createEmptyDatabase();
  await migrate(database.url);
  await query(
    database.url,
    "INSERT INTO schema_migrations (name, batch, migration_time) VALUES ('9999_from_the_future', 2, now())",
  );
  const refusal: unknown = await migrate(database.url).catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(MigrationError);
  expect(refusal).toHaveProperty("message", expect.stringContaining("9999_from_the_future"));
  expect(await query(database.url, "SELECT FROM schema_migrations")).toHaveLength(NAMES.length + 1);
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
