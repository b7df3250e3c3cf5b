import { readdirSync, readFileSync } from "node:fs";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { HANDSHAKE_MS, newSocket } from "./connections.ts";
import { SILENT_LOG } from "./database.ts";
import { writableUrl } from "./database-hosts.ts";

const FOLDER = new URL("../../migrations/", import.meta.url);
/** Of pg_advisory_lock; any number that nobody else on the same database uses. */
const MIGRATION_LOCK = 7_294_116_530_218_402n;
const SESSION_OPTIONS = "-c timezone=UTC";
/** The oldest PostgreSQL that the service is run on. */
const OLDEST_SERVER = 150_000;

export class MigrationError extends Error {
  override readonly name = "MigrationError";
}

/**
 * Brings a database to the newest schema; safe when several start at once, and when one is killed half-way (each
 * migration is a transaction, and the lock dies with its connection).
 *
 * @returns the names of the migrations that were applied now
 * @throws MigrationError when the server is too old, or the database was migrated by a newer version of the service
 */
export async function migrate(databaseUrl: string): Promise<readonly string[]> {
  return await migrateOn(await writableUrl(databaseUrl));
}

async function migrateOn(databaseUrl: string): Promise<readonly string[]> {
  const guard = new pg.Client({
    connectionString: databaseUrl,
    application_name: "harborforge-agents migrate",
    // Whatever PGOPTIONS says: a search path of the user's would put the tables elsewhere.
    options: SESSION_OPTIONS,
    connectionTimeoutMillis: HANDSHAKE_MS,
    stream: newSocket,
  });
  // Without a listener a connection that breaks while it only holds the lock would end the process.
  guard.on("error", () => undefined);
  try {
    await guard.connect();
    const { rows } = await guard.query<{ server_version_num: string }>("SHOW server_version_num");
    const version = Number(rows[0]?.server_version_num);
    if (version < OLDEST_SERVER) {
      throw new MigrationError(
        `PostgreSQL ${Math.floor(version / 10_000)} is too old: use 15 or newer (tested up to 18).`,
      );
    }
    await guard.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    return await applyMigrations(databaseUrl);
  } finally {
    await guard.end();
  }
}

async function applyMigrations(databaseUrl: string): Promise<readonly string[]> {
  const knex = knexFactory({
    client: "pg",
    connection: { connectionString: databaseUrl, options: SESSION_OPTIONS },
    pool: { min: 0, max: 1 },
    log: SILENT_LOG,
  });
  try {
    const source = new SqlMigrations();
    refuseNewer(await appliedMigrations(knex), source.names);
    const settings: Knex.MigratorConfig = { migrationSource: source, tableName: "schema_migrations" };
    // The advisory lock is ours, so whatever Knex's own lock says is left from a process that was killed.
    await knex.migrate.forceFreeMigrationsLock(settings);
    const [, names]: [number, string[]] = await knex.migrate.latest(settings);
    return names;
  } finally {
    await knex.destroy();
  }
}

/**
 * Checks that a database has all migrations of this program, and no others.
 *
 * @throws MigrationError which says what is missing, or that a newer version migrated it
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
      ? "not migrated: it has no schema of this service"
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

/** The numbered SQL files, named without their ending: a packed build may hold them under another one. */
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
          // Knex takes a question mark, which is an operator of jsonb, for the place of a value.
          await knex.raw(sql.replaceAll("?", "\\?"));
        } catch (error) {
          // Knex puts the whole migration before what is wrong with it.
          const message = error instanceof Error ? (error.message.split(" - ").at(-1) ?? "") : String(error);
          throw new MigrationError(`The migration ${name} failed and changed nothing: ${message}`, { cause: error });
        }
      },
      down: () => Promise.reject(new MigrationError("Migrations are append-only; restore a backup to go back.")),
    });
  }
}
