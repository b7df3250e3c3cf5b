import { setTimeout as delay } from "node:timers/promises";
import type { ProgramLog } from "../../common/logging/logger.ts";
import type { Config } from "../config/config.ts";
import { checkSchema, migrate, type OnNewerSchema, unmigrated } from "../storage/migrations.ts";
import type { CommandContext } from "./command.ts";
import { EXIT_FAILED, EXIT_OK } from "./exit-codes.ts";
import { unlessAborted } from "./stop-signals.ts";

const POLL_MS = 500;
const LOG_AGAIN_MS = 30_000;

/**
 * Prepares the database for `serve`, as the setting `migrate` says: migrates it, or waits until another process has.
 *
 * @returns once the database has the schema of this program
 * @throws MigrationError; UnusableDatabase; the driver's errors
 */
export async function prepareSchema(
  { database, log, signals }: Pick<CommandContext, "database" | "log" | "signals">,
  setting: Exclude<Config["migrate"], "check">,
): Promise<void> {
  const onNewer = logNewerSchema(log);
  if (setting === "off") return await awaitMigration(database.url, onNewer, log, signals.stopping);
  const applied = await unlessAborted(migrate(database.url, onNewer), signals.stopping);
  if (applied.length > 0) log.info({ event: "database.migrated", migrations: applied }, "migrated the database");
}

async function awaitMigration(
  url: string,
  onNewer: OnNewerSchema,
  log: ProgramLog,
  stopping: AbortSignal,
): Promise<void> {
  let loggedAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    const { missing, newer } = await unlessAborted(checkSchema(url), stopping);
    if (missing.length === 0) {
      if (newer !== null) onNewer(newer);
      return;
    }
    if (performance.now() - loggedAt >= LOG_AGAIN_MS) {
      loggedAt = performance.now();
      log.info({ event: "database.migration_awaited", missing }, "waiting for the migration of the database");
    }
    await unlessAborted(delay(POLL_MS), stopping);
  }
}

/** Logs that a newer version migrated the database. */
export function logNewerSchema(log: ProgramLog): OnNewerSchema {
  return (schema) => log.info({ event: "database.schema_newer", ...schema }, "a newer version migrated the database");
}

/**
 * Says whether this program can use the database as it is. Changes nothing.
 *
 * @returns the exit code
 * @throws MigrationError if a newer version excludes this one; UnusableDatabase; the driver's errors
 */
export async function reportSchema({ process, database, databaseName, signals }: CommandContext): Promise<number> {
  const { missing, newer } = await unlessAborted(checkSchema(database.url), signals.stopping);
  if (missing.length > 0) {
    process.stderr.write(`${databaseName} is ${unmigrated(missing)}. Run "harborforge-agents migrate".\n`);
    return EXIT_FAILED;
  }
  const state =
    newer === null
      ? "is at the newest schema"
      : `was migrated by a newer version (${newer.unknown.join(", ")}), and allows this one`;
  process.stdout.write(`${databaseName} ${state}.\n`);
  return EXIT_OK;
}
