import type { ProgramLog } from "../../common/logging/logger.ts";
import { withoutPasswords } from "../../common/secrets/redaction.ts";
import { type Config, loadConfig } from "../config/config.ts";
import type { SettingKey } from "../config/settings.ts";
import { databaseLabel } from "../config/values.ts";
import { type DatabaseInUse, type WhenInUse, withEmbeddedPostgres } from "./embedded.ts";
import { EXIT_FAILED, EXIT_OK } from "./exit-codes.ts";
import { explain } from "./failure-explanation.ts";
import { createLog } from "./log.ts";
import { type StopSignals, stopSignals } from "./stop-signals.ts";
import { printableLines } from "./terminal/printable.ts";

/** The settings of the command line, by the keys of `SETTINGS`. */
export type Flags = Readonly<Partial<Record<SettingKey, string>>>;

/** The environment of a command that uses the database. */
export interface CommandContext {
  readonly process: NodeJS.Process;
  readonly config: Config;
  readonly database: DatabaseInUse;
  /** The name of the database in messages, without its password. */
  readonly databaseName: string;
  readonly log: ProgramLog;
  readonly signals: StopSignals;
}

/** After an uncaught error: how long an orderly stop may take, in milliseconds. */
const CRASH_GRACE_MS = 10_000;

/**
 * Runs a command that uses the database: reads the configuration, starts the embedded PostgreSQL if no other is
 * configured, and stops it afterwards in any case. A failure is one sentence on standard error.
 *
 * @param whenInUse "share": the command may run beside a service that uses the embedded PostgreSQL
 * @returns the exit code
 */
export async function runCommand(
  process: NodeJS.Process,
  flags: Flags,
  work: (context: CommandContext) => Promise<number>,
  whenInUse: WhenInUse = "refuse",
): Promise<number> {
  ignoreClosedOutput(process);
  const signals = stopSignals(process);
  let databaseName = "The database";
  let log: ProgramLog | undefined;
  let crashed = false;
  // After an uncaught error the state of the program is unknown, but the database can still be stopped.
  const onCrash = (error: unknown): void => {
    crashed = true;
    log?.fatal({ event: "service.crashed", err: error }, "uncaught error, stopping");
    signals.hurry();
    setTimeout(() => process.exit(EXIT_FAILED), CRASH_GRACE_MS).unref();
  };
  process.on("uncaughtException", onCrash);
  try {
    const config = loadConfig({ env: process.env, flags, isTerminal: process.stderr.isTTY });
    if (config.database.kind === "external") databaseName = `The database ${databaseLabel(config.database.url)}`;
    log = createLog(config, process.stderr);
    const context = { process, config, databaseName, log, signals };
    const exitCode = await withEmbeddedPostgres(
      config.database,
      process.env,
      log,
      (database) => work({ ...context, database }),
      whenInUse,
      signals.stopping,
    );
    return crashed ? EXIT_FAILED : exitCode;
  } catch (error) {
    if (crashed) return EXIT_FAILED;
    // An interrupt during the start is a normal end.
    if (signals.stopping.aborted && error === signals.stopping.reason) return EXIT_OK;
    const { sentence, exitCode, defect } = explain(error, databaseName);
    process.stderr.write(`${printableLines(withoutPasswords(sentence))}\n`);
    if (defect) log?.debug({ event: "command.failed", err: error }, "the command failed");
    return exitCode;
  }
}

/** A closed output (`| head`, a closed terminal) must not stop the service. */
function ignoreClosedOutput({ stdout, stderr }: NodeJS.Process): void {
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined);
}
