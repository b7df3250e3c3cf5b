import { migrate, type OnNewerSchema } from "../storage/migrations.ts";
import { declareNewHistory } from "../storage/new-history.ts";
import { type Flags, runCommand } from "./command.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { logNewerSchema, reportSchema } from "./schema.ts";
import { unlessAborted } from "./stop-signals.ts";

/**
 * `migrate`: migrates the database to the newest schema; the embedded one if no other is configured.
 *
 * @returns the exit code
 */
export function migrateCommand(process: NodeJS.Process, flags: Flags): Promise<number> {
  return runCommand(process, flags, async ({ database, databaseName, log, signals }) => {
    let newest = "is at the newest schema already";
    const onNewer: OnNewerSchema = (schema) => {
      newest = "was migrated by a newer version already, and allows this one";
      logNewerSchema(log)(schema);
    };
    const applied = await unlessAborted(migrate(database.url, onNewer), signals.stopping);
    const what = applied.length === 0 ? newest : `was migrated: ${applied.join(", ")}`;
    process.stdout.write(`${databaseName} ${what}.\n`);
    return EXIT_OK;
  });
}

/**
 * `migrate --check`: says whether this program can use the database as it is. Also works while a service is running.
 *
 * @returns the exit code
 */
export function checkCommand(process: NodeJS.Process, flags: Flags): Promise<number> {
  return runCommand(process, flags, reportSchema, "share");
}

/**
 * `migrate --new-history`: an operator brought the database back to an older state in a way that the service cannot
 * detect. Also works while a service is running.
 *
 * @returns the exit code
 */
export function newHistoryCommand(process: NodeJS.Process, flags: Flags): Promise<number> {
  return runCommand(
    process,
    flags,
    async ({ database, databaseName, signals }) => {
      const { from, to } = await unlessAborted(declareNewHistory(database.url), signals.stopping);
      process.stdout.write(
        `${databaseName} begins a new history: the last revision was ${from}, new revisions are larger than ${to}. Watchers with a position between these get REVISION_COMPACTED and start again with a snapshot.\n`,
      );
      return EXIT_OK;
    },
    "share",
  );
}
