import { type DestinationStream, type LoggerOptions, pino, stdTimeFunctions } from "pino";
import pretty from "pino-pretty";
import type { ProgramLog } from "../../common/logging/logger.ts";
import type { Config } from "../config/config.ts";
import { loggedError } from "./logged-error.ts";
import { unambiguous, unambiguousJson } from "./terminal/printable.ts";

/** This program does not log these fields. If it ever does, they stay out of the log. */
const SECRETS = [
  "password",
  "token",
  "secret",
  "authorization",
  "cookie",
  "headers",
  "connectionString",
  "databaseUrl",
  "DATABASE_URL",
];

/** For people: the message comes first, and the name of the event on the same line. */
const ONE_HEADLINE = { messageFormat: "{msg}{if event} ({event}){end}", ignore: "event" };

/**
 * Writes the log to standard error: standard output is for results. Names and messages may come from outside, so
 * control, bidirectional and invisible characters are escaped in each line. In JSON this is the same text; in lines for
 * people the escape is visible.
 */
export function createLog(config: Pick<Config, "logLevel" | "logFormat">, stderr: NodeJS.WriteStream): ProgramLog {
  const destination =
    config.logFormat === "pretty"
      ? escapingValues(pretty({ destination: stderr, colorize: stderr.isTTY === true, sync: true, ...ONE_HEADLINE }))
      : escapingLines(stderr);
  return pino(lineOptions(config.logLevel), destination);
}

/**
 * A log whose lines are appended to a file, as JSON. A write does not hold the program up.
 *
 * @param path a file that exists
 * @param maxWaitingBytes further lines are dropped while the disk is slow or full
 */
export function appendingLog(path: string, maxWaitingBytes: number) {
  const file = pino.destination({ dest: path, append: true, sync: false, maxLength: maxWaitingBytes });
  return { file, log: pino(lineOptions("info"), escapingLines(file)) };
}

/** The options of all lines of this program. */
function lineOptions(level: string): LoggerOptions {
  return {
    level,
    // The collector of the log knows the process and the machine.
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: (error: unknown) => loggedError(error) },
    redact: [...SECRETS, ...SECRETS.map((name) => `*.${name}`)],
  };
}

/** Escapes characters in lines of JSON. */
export function escapingLines(destination: DestinationStream): DestinationStream {
  return { write: (line) => void destination.write(unambiguousJson(line)) };
}

/** Escapes texts and keys of JSON lines for a reader that prints them decoded. */
function escapingValues(destination: DestinationStream): DestinationStream {
  return { write: (line) => void destination.write(`${JSON.stringify(readable(JSON.parse(line)))}\n`) };
}

function readable(value: unknown): unknown {
  if (typeof value === "string") return unambiguous(value);
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [unambiguous(key), readable(inner)]));
}
