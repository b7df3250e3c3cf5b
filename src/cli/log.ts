import { type DestinationStream, type Logger, pino, stdTimeFunctions } from "pino";
import pretty from "pino-pretty";
import type { Config } from "../config.ts";

/** The log goes to standard error: standard output is for what the program was asked to say. */
export function createLog(config: Pick<Config, "logLevel" | "logFormat">, stderr: NodeJS.WriteStream): Logger {
  const destination: DestinationStream =
    config.logFormat === "pretty"
      ? pretty({ destination: stderr, colorize: stderr.isTTY === true, ignore: "pid,hostname", sync: true })
      : stderr;
  return pino(
    {
      level: config.logLevel,
      timestamp: stdTimeFunctions.isoTime,
      // Nothing of ours logs these; if something does one day, it stays out of the log.
      redact: ["*.password", "*.token", "*.authorization", "*.connectionString"],
    },
    destination,
  );
}
