import { oneOf, path } from "./setting.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_FORMATS = ["auto", "pretty", "json"] as const;

export const AUDITED_CALLS = ["all", "admin", "none"] as const;
/** `admin`: changes that need the role admin, without those of an agent's status by services. */
export type AuditedCalls = (typeof AUDITED_CALLS)[number];

export const LOG_SETTINGS = {
  logLevel: oneOf({ placeholder: "<level>", description: "the lowest level of log lines" }, "info", LOG_LEVELS),
  logFormat: oneOf(
    {
      placeholder: "<format>",
      description: "the format of the log",
      defaultText: "auto: pretty on a terminal, else json",
    },
    "auto",
    LOG_FORMATS,
  ),
  auditLog: oneOf(
    {
      placeholder: "<changes>",
      description: "the changes with an audit line; admin leaves out those that need no admin, such as of a status",
    },
    "all",
    AUDITED_CALLS,
  ),
  auditFile: path(
    {
      placeholder: "<file>",
      description: "a file for the audit lines, as JSON; lines are appended",
      defaultText: "none: they are lines of the log",
    },
    "a file",
  ),
};

/** @param isTerminal whether the log is written to a terminal */
export function logFormatOf(format: (typeof LOG_FORMATS)[number], isTerminal: boolean): "pretty" | "json" {
  if (format !== "auto") return format;
  return isTerminal ? "pretty" : "json";
}
