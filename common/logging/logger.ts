import type { LogEvent, LogLevel } from "./log-events.ts";

/** The facts of a log line: the name of its event, and its other fields. */
export interface Facts<Level extends LogLevel> {
  readonly event: LogEvent<Level>;
  readonly [fact: string]: unknown;
}

/** The log for operators. Each method takes only the events of its level. Pino's loggers implement it. */
export interface Logger {
  error(facts: Facts<"error">, message: string): void;
  warn(facts: Facts<"warn">, message: string): void;
  info(facts: Facts<"info">, message: string): void;
  debug(facts: Facts<"debug">, message: string): void;
}

/** The log of a program. */
export interface ProgramLog extends Logger {
  /** The lowest level that it writes; `silent` writes none. */
  readonly level: string;
  fatal(facts: Facts<"fatal">, message: string): void;
  /** A log to the same destination, whose lines have these fields too. Its level may differ. */
  child(fields: Readonly<Record<string, unknown>>, options?: { readonly level?: string }): Logger;
}
