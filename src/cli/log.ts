import { type DestinationStream, type Logger, pino, stdTimeFunctions } from "pino";
import pretty from "pino-pretty";
import type { Config } from "../config/config.ts";
import { loggedError } from "./logged-error.ts";
import { unambiguous, unambiguousJson } from "./terminal/printable.ts";

/** Nothing of ours logs these; if something does one day, it stays out of the log. */
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

/**
 * The log goes to standard error: standard output is for what the program was asked to say. Names and messages in it came from
 * outside: in every line, control, bidirectional and invisible characters are escaped. In JSON that is another spelling of the
 * same text; in lines for people it is visible.
 */
export function createLog(config: Pick<Config, "logLevel" | "logFormat">, stderr: NodeJS.WriteStream): Logger {
  const destination =
    config.logFormat === "pretty"
      ? escapingValues(pretty({ destination: stderr, colorize: stderr.isTTY === true, sync: true }))
      : escapingLines(stderr);
  return pino(
    {
      level: config.logLevel,
      // Which process of which machine it was, whoever collects the lines knows already.
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (error: unknown) => loggedError(error) },
      redact: [...SECRETS, ...SECRETS.map((name) => `*.${name}`)],
    },
    destination,
  );
}

/** Escapes in lines of JSON, before they are written. */
export function escapingLines(destination: DestinationStream): DestinationStream {
  return { write: (line) => void destination.write(unambiguousJson(line)) };
}

/** Escapes the texts and keys in lines of JSON that somebody reads and prints as they are. */
function escapingValues(destination: DestinationStream): DestinationStream {
  return { write: (line) => void destination.write(`${JSON.stringify(readable(JSON.parse(line)))}\n`) };
}

function readable(value: unknown): unknown {
  if (typeof value === "string") return unambiguous(value);
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [unambiguous(key), readable(inner)]));
}
