import { migrate } from "../storage/migrate.ts";
import { type Flags, runCommand } from "./command.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { unlessAborted } from "./stop-signals.ts";

/**
 * `migrate`: brings the database to the newest schema, the embedded one where no other is named.
 *
 * @returns the exit code
 */
export function migrateCommand(process: NodeJS.Process, flags: Flags): Promise<number> {
  return runCommand(process, flags, async ({ database, databaseName, signals }) => {
    const applied = await unlessAborted(migrate(database.url), signals.stopping);
    const what = applied.length === 0 ? "is at the newest schema already" : `was migrated: ${applied.join(", ")}`;
    process.stdout.write(`${databaseName} ${what}.\n`);
    return EXIT_OK;
  });
}
