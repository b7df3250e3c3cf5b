import { readdirSync, readFileSync } from "node:fs";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { SILENT_LOG } from "./database.ts";
import { clientClassOf } from "./service-client.ts";
import { type DatabaseCommand, withDatabase } from "./single-client.ts";

const FOLDER = new URL("../../migrations/", import.meta.url);
/** The key of pg_advisory_lock; other programs on the same database must not use it. */
const MIGRATION_LOCK = 7_294_116_530_218_402n;

/** The database cannot be migrated or used. The message is for the operator. */
export class MigrationError extends Error {
  override readonly name = "MigrationError";
}

/**
 * Migrates a database to the newest schema. It is safe when several processes start at the same time, or one is killed:
 * each migration is a transaction, and the lock ends with its connection.
 *
 * @returns the names of the applied migrations
 * @throws UnusableDatabase if the service cannot use the database; MigrationError if a newer version of the service
 * migrated it
 */
export async function migrate(databaseUrl: string): Promise<readonly string[]> {
  return await withDatabase(databaseUrl, async (command) => {
    await command.client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    return await applyMigrations(command);
  });
}

async function applyMigrations({ url, session }: DatabaseCommand): Promise<readonly string[]> {
  const knex = knexFactory({
    client: "pg",
    connection: { connectionString: url },
    pool: { min: 0, max: 1 },
    log: SILENT_LOG,
  });
  knex.client.driver = { ...pg, Client: clientClassOf(session) };
  try {
    const source = new SqlMigrations();
    refuseNewer(await appliedMigrations(knex), source.names);
    const settings: Knex.MigratorConfig = { migrationSource: source, tableName: "schema_migrations" };
    // This process has the advisory lock, so a lock of Knex is left from a killed process.
    await knex.migrate.forceFreeMigrationsLock(settings);
    const [, names]: [number, string[]] = await knex.migrate.latest(settings);
    return names;
  } finally {
    await knex.destroy();
  }
}

/** The number of the newest migration of this program. */
export function schemaVersion(): number {
  return Number.parseInt(new SqlMigrations().names.at(-1) ?? "0", 10);
}

/**
 * Checks that a database has exactly the migrations of this program.
 *
 * @throws MigrationError with the missing migrations, or if a newer version migrated the database
 */
export async function assertMigrated(client: pg.Client): Promise<void> {
  const { names } = new SqlMigrations();
  const there = await client.query<{ there: boolean }>("SELECT to_regclass('schema_migrations') IS NOT NULL AS there");
  const { rows } =
    there.rows[0]?.there === true
      ? await client.query<{ name: string }>("SELECT name FROM schema_migrations ORDER BY id")
      : { rows: [] };
  const applied = rows.map(({ name }) => name);
  refuseNewer(applied, names);
  const missing = names.filter((name) => !applied.includes(name));
  if (missing.length === 0) return;
  const what =
    applied.length === 0
      ? "not migrated: the schema of this service is missing"
      : `not migrated: it lacks ${missing.join(", ")}`;
  throw new MigrationError(`The database is ${what}. Run "harborforge-agents migrate" first.`);
}

function refuseNewer(applied: readonly string[], names: readonly string[]): void {
  const unknown = applied.filter((name) => !names.includes(name));
  if (unknown.length === 0) return;
  throw new MigrationError(
    `The database was migrated by a newer version of this service (it has ${unknown.join(", ")}). Start that version, or another database.`,
  );
}

async function appliedMigrations(knex: Knex): Promise<string[]> {
  if (!(await knex.schema.hasTable("schema_migrations"))) return [];
  const rows: { name: string }[] = await knex("schema_migrations").select("name").orderBy("id");
  return rows.map((row) => row.name);
}

/** The numbered SQL files, named without their extension, which a packed build may change. */
class SqlMigrations implements Knex.MigrationSource<string> {
  readonly names: readonly string[] = readdirSync(FOLDER)
    .filter((file) => file.endsWith(".sql"))
    .map((file) => file.slice(0, -".sql".length))
    .sort();

  getMigrations(): Promise<string[]> {
    return Promise.resolve([...this.names]);
  }

  getMigrationName(name: string): string {
    return name;
  }

  getMigration(name: string): Promise<Knex.Migration> {
    const sql = readFileSync(new URL(`${name}.sql`, FOLDER), "utf8");
    return Promise.resolve({
      up: async (knex: Knex) => {
        try {
          // Knex would replace a question mark, an operator of jsonb, by a value.
          await knex.raw(sql.replaceAll("?", "\\?"));
        } catch (error) {
          // Knex prepends the whole SQL text to the message.
          const message = error instanceof Error ? (error.message.split(" - ").at(-1) ?? "") : String(error);
          throw new MigrationError(`The migration ${name} failed and changed nothing: ${message}`, { cause: error });
        }
      },
      down: () => Promise.reject(new MigrationError("Migrations are append-only; restore a backup to go back.")),
    });
  }
}
