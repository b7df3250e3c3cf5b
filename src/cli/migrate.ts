import { loadConfig } from "../config.ts";
import { databaseLabel } from "../config-values.ts";
import { migrate } from "../storage/migrate.ts";
import { withEmbeddedPostgres } from "./embedded.ts";
import { EXIT_OK, explain } from "./failure.ts";
import { createLog } from "./log.ts";

/** `migrate`: brings the database to the newest schema, the embedded one where no other is named. */
export async function migrateCommand(process: NodeJS.Process, databaseUrl: string | undefined): Promise<number> {
  let label = "The database";
  try {
    const config = loadConfig({ env: process.env, flags: { databaseUrl }, isTerminal: process.stderr.isTTY });
    if (config.database.kind === "external") label = `The database ${databaseLabel(config.database.url)}`;
    const log = createLog(config, process.stderr);
    const applied = await withEmbeddedPostgres(config.database, process.env, log, ({ url }) => migrate(url));
    const what = applied.length === 0 ? "is at the newest schema already" : `was migrated: ${applied.join(", ")}`;
    process.stdout.write(`${label} ${what}.\n`);
    return EXIT_OK;
  } catch (error) {
    const { sentence, exitCode } = explain(error, label);
    process.stderr.write(`${sentence}\n`);
    return exitCode;
  }
}
