import { closeSync, openSync } from "node:fs";
import type { ProgramLog } from "../../common/logging/logger.ts";
import { ConfigError } from "../config/problems.ts";
import { SETTINGS } from "../config/settings.ts";
import { appendingLog } from "./log.ts";

/** Audit lines in a file of their own. */
export interface AuditLog extends AsyncDisposable {
  /** Undefined: audit lines are lines of the program's log. */
  readonly log: ProgramLog | undefined;
}

/** The file is readable by this user only. A file that exists keeps its mode. */
const MODE = 0o600;
/** Lines that wait for a disk that is slow or full. Further ones are lost. */
const MAX_WAITING_BYTES = 16 * 1_024 * 1_024;

/**
 * Opens the file for audit lines. Lines are appended one by one, so that a rotation may truncate the file meanwhile.
 * A write does not hold the program up, and a failed one is an error in `log`.
 *
 * @param path undefined: there is no such file
 * @throws ConfigError if the file cannot be written
 */
export function openAuditLog(path: string | undefined, log: ProgramLog): AuditLog {
  if (path === undefined) return { log: undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  try {
    // Fails here if it cannot be written, with the error of the system.
    closeSync(openSync(path, "a", MODE));
  } catch (error) {
    const { env } = SETTINGS.auditFile;
    const why = error instanceof Error ? error.message : String(error);
    throw new ConfigError([{ name: env, sentence: `${env}: the file cannot be written (${why}).` }]);
  }
  const { file, log: lines } = appendingLog(path, MAX_WAITING_BYTES);
  // Once for each failure in a row: a full disk fails with every line.
  let failing = false;
  const failed = (error: unknown): void => {
    if (!failing) log.error({ event: "audit.write_failed", err: error }, "audit lines were not written");
    failing = true;
  };
  file.on("error", failed);
  file.on("drop", () => failed(new Error("too many lines wait for the disk")));
  file.on("write", () => {
    failing = false;
  });
  return {
    log: lines,
    async [Symbol.asyncDispose]() {
      const ended = new Promise<void>((resolve) => file.once("close", resolve).once("error", () => resolve()));
      file.end();
      await ended;
    },
  };
}
