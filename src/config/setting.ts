import { type Address, formatDuration, parseAddress, parseDuration } from "./values.ts";

/** One setting: an environment variable that is also a flag of `serve`. */
export interface Setting<Value> {
  /** The environment variable. */
  readonly env: string;
  /** The long flag without its dashes. */
  readonly flag: string;
  /** What stands for the value in the usage text. */
  readonly placeholder: string;
  readonly description: string;
  /** What counts where nothing is given, for people. */
  readonly defaultText: string;
  /** What counts where nothing is given. */
  readonly fallback: Value;
  /** Unit and range, to complete «must be …». */
  readonly allowed: string;
  /** Whether the value may hold a password, so that it is never shown. */
  readonly secret: boolean;
  /** Undefined where the text is not allowed. */
  parse(text: string): Value | undefined;
}

export type Facts = Pick<Setting<unknown>, "env" | "flag" | "placeholder" | "description" | "defaultText">;

export function duration(
  facts: Facts & { readonly fallback: number },
  shortestMs: number,
  longestMs: number,
): Setting<number> {
  return {
    ...facts,
    secret: false,
    allowed: `a duration from ${formatDuration(shortestMs)} to ${formatDuration(longestMs)}, such as 500ms, 10s or 1m30s`,
    parse(text) {
      const ms = parseDuration(text);
      return ms !== undefined && ms >= shortestMs && ms <= longestMs ? ms : undefined;
    },
  };
}

export function wholeNumber(
  facts: Facts & { readonly fallback: number },
  least: number,
  most: number,
): Setting<number> {
  return {
    ...facts,
    secret: false,
    allowed: `a whole number from ${least} to ${most}`,
    parse(text) {
      const number = /^\d{1,15}$/.test(text) ? Number(text) : undefined;
      return number !== undefined && number >= least && number <= most ? number : undefined;
    },
  };
}

export function oneOf<Choice extends string>(
  facts: Facts & { readonly fallback: NoInfer<Choice> },
  choices: readonly Choice[],
): Setting<Choice> {
  return {
    ...facts,
    secret: false,
    allowed: `one of ${choices.join(", ")}`,
    parse: (text) => choices.find((choice) => choice === text),
  };
}

export function address(facts: Facts & { readonly fallback: Address }): Setting<Address> {
  return {
    ...facts,
    secret: false,
    allowed: "host:port or [IPv6 address]:port, with a port from 0 (takes a free one) to 65535",
    parse: parseAddress,
  };
}
