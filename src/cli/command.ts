import type { Logger } from "pino";
import { type Config, loadConfig } from "../config/config.ts";
import type { SettingKey } from "../config/settings.ts";
import { databaseLabel } from "../config/values.ts";
import { type DatabaseInUse, type WhenInUse, withEmbeddedPostgres } from "./embedded.ts";
import { EXIT_FAILED, EXIT_OK } from "./exit-codes.ts";
import { explain } from "./failure.ts";
import { createLog } from "./log.ts";
import { type StopSignals, stopSignals } from "./stop-signals.ts";
import { printableLines } from "./terminal/printable.ts";

/** What was given on the command line, by the keys of `SETTINGS`. */
export type Flags = Readonly<Partial<Record<SettingKey, string>>>;

/** What a command works with. */
export interface CommandContext {
  readonly process: NodeJS.Process;
  readonly config: Config;
  readonly database: DatabaseInUse;
  /** The database as people are told of it, without password. */
  readonly databaseName: string;
  readonly log: Logger;
  readonly signals: StopSignals;
}

/** After a crash: how long the rest may take to end in good order. */
const CRASH_GRACE_MS = 10_000;

/**
 * Runs a command that needs the database: reads the configuration, starts the embedded PostgreSQL where it is the one
 * chosen, and stops it afterwards, whatever happens. A failure is one sentence on standard error.
 *
 * @param whenInUse "share": the command may work beside a service that has the embedded PostgreSQL
 * @returns the exit code
 */
export async function runCommand(
  process: NodeJS.Process,
  flags: Flags,
  work: (context: CommandContext) => Promise<number>,
  whenInUse: WhenInUse = "refuse",
): Promise<number> {
  survivesClosedOutput(process);
  const signals = stopSignals(process);
  let databaseName = "The database";
  let log: Logger | undefined;
  let crashed = false;
  // A defect that nobody caught: what it left behind cannot be trusted, but the database can still be stopped.
  const onCrash = (error: unknown): void => {
    crashed = true;
    log?.fatal({ err: error }, "an error that nobody expected: stopping");
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
    // Interrupted before there was anything to stop: that is what was asked for.
    if (signals.stopping.aborted && error === signals.stopping.reason) return EXIT_OK;
    const { sentence, exitCode, defect } = explain(error, databaseName);
    process.stderr.write(`${printableLines(sentence)}\n`);
    if (defect) log?.debug({ err: error }, "where it failed");
    return exitCode;
  }
}

/** Whoever read what we say may be gone (`| head`, a closed terminal): that is no reason to stop serving. */
function survivesClosedOutput({ stdout, stderr }: NodeJS.Process): void {
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined);
}
