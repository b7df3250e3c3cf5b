import { readdirSync, readFileSync } from "node:fs";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { programVersion } from "../../common/program-version.ts";
import { judgeSchema, type NewerSchema, type Schema, type UsableSchema } from "./compatibility.ts";
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

/** Told when a newer version migrated the database, and this program may use it all the same. */
export type OnNewerSchema = (schema: NewerSchema) => void;

/**
 * Migrates a database to the newest schema. It is safe when several processes start at the same time, or one is killed:
 * each migration is a transaction, and the lock ends with its connection. A schema of a newer version stays as it is.
 *
 * @returns the names of the applied migrations
 * @throws UnusableDatabase if the service cannot use the database; MigrationError if a newer version migrated it in a way
 * that excludes this one
 */
export async function migrate(databaseUrl: string, onNewer?: OnNewerSchema): Promise<readonly string[]> {
  return await withDatabase(databaseUrl, async (command) => {
    await command.client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    const { missing, newer } = usable(await readSchema(command.client));
    if (newer !== null) onNewer?.(newer);
    return missing.length === 0 ? [] : await applyMigrations(command);
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
    const settings: Knex.MigratorConfig = { migrationSource: new SqlMigrations(), tableName: "schema_migrations" };
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
 * Reads whether this program may use a database, and which of its migrations the database lacks. Changes nothing.
 *
 * @throws UnusableDatabase; MigrationError if a newer version migrated the database in a way that excludes this one
 */
export async function checkSchema(databaseUrl: string): Promise<UsableSchema> {
  return await withDatabase(databaseUrl, async ({ client }) => usable(await readSchema(client)));
}

/**
 * Checks that a database has all migrations of this program.
 *
 * @throws MigrationError with the missing migrations, or if a newer version migrated the database in a way that excludes
 * this one
 */
export async function assertMigrated(client: pg.Client): Promise<void> {
  const { missing } = usable(await readSchema(client));
  if (missing.length === 0) return;
  throw new MigrationError(`The database is ${unmigrated(missing)}. Run "harborforge-agents migrate" first.`);
}

/** The same for a database that is not connected yet. */
export async function assertMigratedAt(databaseUrl: string): Promise<void> {
  await withDatabase(databaseUrl, ({ client }) => assertMigrated(client));
}

/** Completes «the database is …». */
export function unmigrated(missing: readonly string[]): string {
  return missing.length === new SqlMigrations().names.length
    ? "not migrated: the schema of this service is missing"
    : `not migrated: it lacks ${missing.join(", ")}`;
}

/** @throws MigrationError */
function usable(schema: Schema): UsableSchema {
  const judged = judgeSchema(schema, { version: programVersion(), migrations: new SqlMigrations().names });
  if (typeof judged === "string") throw new MigrationError(judged);
  return judged;
}

async function readSchema(client: pg.Client): Promise<Schema> {
  const there = await client.query<{ migrations: boolean; compatibility: boolean }>(
    `SELECT to_regclass('schema_migrations') IS NOT NULL AS migrations,
       to_regclass('schema_compatibility') IS NOT NULL AS compatibility`,
  );
  const { migrations = false, compatibility = false } = there.rows[0] ?? {};
  if (!migrations) return { applied: [], allows: null };
  const names = "(SELECT array_agg(name::text ORDER BY id) FROM schema_migrations)";
  const { rows } = await client.query<{
    applied: string[] | null;
    format: number | null;
    compatible_from: string | null;
  }>(
    compatibility
      ? `SELECT ${names} AS applied, c.format, c.compatible_from FROM (SELECT) one LEFT JOIN schema_compatibility c ON true`
      : `SELECT ${names} AS applied, NULL::integer AS format, NULL::text AS compatible_from`,
  );
  const { applied = null, format = null, compatible_from: compatibleFrom = null } = rows[0] ?? {};
  return {
    applied: applied ?? [],
    allows: format === null || compatibleFrom === null ? null : { format, compatibleFrom },
  };
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
