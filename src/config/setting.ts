import { resolve } from "node:path";
import { type Address, formatDuration, parseAddress, parseDuration } from "./values.ts";

/** What a setting means, without its names: these come from its key in the table of settings. */
export interface Definition<Value> {
  /** The environment variable, if it is not `HARBORFORGE_` and the key. */
  readonly env?: string;
  /** Stands for the value in the usage text. */
  readonly placeholder: string;
  readonly description: string;
  /** The default, as people read it. */
  readonly defaultText: string;
  /** The value of a setting that is not given. */
  readonly fallback: Value;
  /** Unit and range, to complete «must be …». */
  readonly allowed: string;
  /** Whether the value may hold a password, so that it is never shown. */
  readonly secret?: boolean;
  /** Undefined for a text that is not allowed. */
  parse(text: string): Value | undefined;
}

/** A duration, in milliseconds. */
export interface DurationDefinition extends Definition<number> {
  readonly unit: "ms";
}

/** A setting: an environment variable that is also a flag of `serve`. */
export interface Setting<Value> extends Definition<Value> {
  readonly env: string;
  /** The long flag without its dashes. */
  readonly flag: string;
}

/** A group of settings by their keys. */
export type Definitions = Readonly<Record<string, Definition<unknown>>>;

/** The values of a group of settings, by the keys of the settings. */
export type ValuesOf<Group extends Definitions> = {
  readonly [Key in keyof Group]: Group[Key] extends Definition<infer Value> ? Value : never;
};

/**
 * Adds the names to settings, from their keys. `maxConnections` is the variable `HARBORFORGE_MAX_CONNECTIONS` and the flag
 * `--max-connections`.
 */
export function named<Group extends Definitions>(
  group: Group,
): { readonly [Key in keyof Group]: Group[Key] & { readonly env: string; readonly flag: string } } {
  const settings: Record<string, Setting<unknown>> = {};
  for (const [key, definition] of Object.entries(group)) {
    const flag = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const env = definition.env ?? `HARBORFORGE_${flag.replaceAll("-", "_").toUpperCase()}`;
    settings[key] = { ...definition, env, flag };
  }
  return settings as ReturnType<typeof named<Group>>;
}

/** What every kind of setting needs besides its range. */
type Facts = Pick<Definition<unknown>, "description"> & Partial<Pick<Definition<unknown>, "placeholder">>;

/** The same for settings without a placeholder of their kind. `defaultText`: the default as people read it. */
type OwnFacts = Facts & { readonly placeholder: string; readonly defaultText?: string };

/** A duration from `shortest` to `longest`, as `parseDuration` reads them. */
export function duration(facts: Facts, byDefault: string, shortest: string, longest: string): DurationDefinition {
  const shortestMs = milliseconds(shortest);
  const longestMs = milliseconds(longest);
  return {
    placeholder: "<duration>",
    ...facts,
    defaultText: byDefault,
    fallback: milliseconds(byDefault),
    unit: "ms",
    allowed: `a duration from ${formatDuration(shortestMs)} to ${formatDuration(longestMs)}, such as 500ms, 10s or 1m30s`,
    parse(text) {
      const ms = parseDuration(text);
      return ms !== undefined && ms >= shortestMs && ms <= longestMs ? ms : undefined;
    },
  };
}

function milliseconds(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new TypeError(`${text} is not a duration`);
  return ms;
}

export function wholeNumber(facts: Facts, fallback: number, least: number, most: number): Definition<number> {
  return {
    placeholder: "<number>",
    ...facts,
    defaultText: String(fallback),
    fallback,
    allowed: `a whole number from ${least} to ${most}`,
    parse(text) {
      const number = /^\d{1,15}$/.test(text) ? Number(text) : undefined;
      return number !== undefined && number >= least && number <= most ? number : undefined;
    },
  };
}

export function oneOf<Choice extends string>(
  facts: OwnFacts,
  fallback: NoInfer<Choice>,
  choices: readonly Choice[],
): Definition<Choice> {
  return {
    defaultText: fallback,
    ...facts,
    fallback,
    allowed: `one of ${choices.join(", ")}`,
    parse: (text) => choices.find((choice) => choice === text),
  };
}

/** A choice of two words, the first of which is true. */
export function either(facts: Facts, fallback: boolean, [yes, no]: readonly [string, string]): Definition<boolean> {
  return {
    placeholder: `<${yes}|${no}>`,
    ...facts,
    defaultText: fallback ? yes : no,
    fallback,
    allowed: `one of ${fallback ? `${yes}, ${no}` : `${no}, ${yes}`}`,
    parse(text) {
      if (text === yes) return true;
      return text === no ? false : undefined;
    },
  };
}

export function address(facts: Facts, byDefault: string): Definition<Address> {
  const fallback = parseAddress(byDefault);
  if (fallback === undefined) throw new TypeError(`${byDefault} is not an address`);
  return {
    placeholder: "<host:port>",
    ...facts,
    defaultText: byDefault,
    fallback,
    allowed: "host:port or [IPv6 address]:port, with a port from 0 (takes a free one) to 65535",
    parse: parseAddress,
  };
}

/** The path of a file or folder, made absolute. `what` completes «the path of …». */
export function path(facts: OwnFacts, what: string): Definition<string | undefined> {
  return {
    defaultText: "none",
    ...facts,
    fallback: undefined,
    allowed: `the path of ${what}, without control characters`,
    parse: (text) => (text === "" || /\p{Cc}/u.test(text) ? undefined : resolve(text)),
  };
}

export function text(facts: OwnFacts): Definition<string | undefined> {
  return {
    defaultText: "none",
    ...facts,
    fallback: undefined,
    allowed: "text without control characters",
    parse: (given) => (given === "" || given.length > 1_000 || /\p{Cc}/u.test(given) ? undefined : given),
  };
}
