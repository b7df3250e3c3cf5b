import { parseArgs } from "node:util";

export interface Options {
  /** The scenarios to run by name; empty: all that run by default. */
  readonly only: readonly string[];
  /** Scenarios to omit. */
  readonly without: readonly string[];
  readonly peers: boolean;
  readonly full: boolean;
  readonly rounds: number;
  readonly roundMs: number;
  readonly out: string;
  /** Whether to update docs/performance.md with the results. */
  readonly docs: boolean;
  /** Do not measure, only redraw the charts and tables of docs/performance.md. */
  readonly redraw: boolean;
}

/** An invalid command line. The message is for the user. */
export class OptionError extends Error {}

/** @throws OptionError */
export function readOptions(args: readonly string[], scenarios: readonly string[]): Options | "help" {
  const { values } = parsed(args);
  if (values.help) return "help";
  const unknown = [...values.only, ...values.without].filter((name) => !scenarios.includes(name));
  if (unknown.length > 0) throw new OptionError(`Unknown scenario ${unknown.join(", ")}. Use ${scenarios.join(", ")}.`);
  if (values.scale !== "small" && values.scale !== "full")
    throw new OptionError(`--scale must be small or full, not ${values.scale}.`);
  return {
    only: values.only,
    without: values.without,
    peers: values.peers,
    full: values.scale === "full",
    rounds: whole("--rounds", values.rounds, 1, 100),
    roundMs: seconds(values.seconds) * 1_000,
    out: values.out,
    docs: values.docs,
    redraw: values.redraw,
  };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        only: { type: "string", multiple: true, default: [] },
        without: { type: "string", multiple: true, default: [] },
        peers: { type: "boolean", default: false },
        scale: { type: "string", default: "small" },
        rounds: { type: "string", default: "5" },
        seconds: { type: "string", default: "1" },
        out: { type: "string", default: "bench/out" },
        docs: { type: "boolean", default: false },
        redraw: { type: "boolean", default: false },
        help: { type: "boolean", default: false, short: "h" },
      },
    });
  } catch (error) {
    // Its messages are for users.
    throw new OptionError(error instanceof Error ? error.message : String(error));
  }
}

function whole(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new OptionError(`${name} is a whole number from ${least} to ${most}, not ${text || "nothing"}.`);
  return value;
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0.5 && value <= 600))
    throw new OptionError(`--seconds is a number from 0.5 to 600, not ${text || "nothing"}.`);
  return value;
}
