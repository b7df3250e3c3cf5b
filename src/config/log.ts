import { oneOf } from "./setting.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_FORMATS = ["auto", "pretty", "json"] as const;

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
};

/** @param isTerminal whether the log is written to a terminal */
export function logFormatOf(format: (typeof LOG_FORMATS)[number], isTerminal: boolean): "pretty" | "json" {
  if (format !== "auto") return format;
  return isTerminal ? "pretty" : "json";
}
