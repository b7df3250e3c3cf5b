import { type DestinationStream, type Logger, pino, stdTimeFunctions } from "pino";
import pretty from "pino-pretty";
import type { Config } from "../config/config.ts";
import { loggedError } from "./logged-error.ts";

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

/** The log goes to standard error: standard output is for what the program was asked to say. */
export function createLog(config: Pick<Config, "logLevel" | "logFormat">, stderr: NodeJS.WriteStream): Logger {
  const destination: DestinationStream =
    config.logFormat === "pretty"
      ? pretty({ destination: stderr, colorize: stderr.isTTY === true, sync: true })
      : stderr;
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
