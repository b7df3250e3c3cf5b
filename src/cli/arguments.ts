import { InvalidArgumentError, Option } from "commander";
import { MICROS_PER_MS, type Micros } from "../../common/contract/time.ts";
import { parseDuration } from "../config/values.ts";

/** The longest run of a command in milliseconds: 24 days. Node ends timers that are longer than 24.8 days at once. */
export const LONGEST_RUN_MS = 24 * 24 * 3_600_000;

/** A parser of durations such as `500ms`, `10s`, `1m30s`, within a range in milliseconds. */
export function durationArgument(leastMs: number, mostMs: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms !== undefined && ms >= leastMs && ms <= mostMs) return ms;
    throw new InvalidArgumentError(
      `It must be a duration from ${spell(leastMs)} to ${spell(mostMs)}, such as 90s or 1m30s.`,
    );
  };
}

function spell(ms: number): string {
  if (ms % 3_600_000 === 0 && ms > 0) return `${ms / 3_600_000}h`;
  return ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`;
}

/** A parser of whole numbers within a range. */
export function wholeArgument(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (number >= least && number <= most) return number;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}

/** Parses a share from 0 to 1. */
export function shareArgument(text: string): number {
  const share = /^\d?(\.\d{1,9})?$|^1\.0*$/.test(text) && text !== "" ? Number(text) : Number.NaN;
  if (share >= 0 && share <= 1) return share;
  throw new InvalidArgumentError("It must be a share from 0 to 1, such as 0.05.");
}

const LARGEST_ID = 2n ** 63n - 1n;

/** Parses the id of a user, or a revision: 0 to 2^63 - 1. */
export function idArgument(text: string): bigint {
  const id = /^\d{1,19}$/.test(text) ? BigInt(text) : -1n;
  if (id >= 0n && id <= LARGEST_ID) return id;
  throw new InvalidArgumentError("It must be a whole number from 0.");
}

/** Parses an RFC 3339 instant with a time zone, such as `2026-11-22T22:30:00Z`. */
export function instantArgument(text: string): Micros {
  const isWhole = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:\d{2})$/.test(text);
  const ms = isWhole ? Date.parse(text.replace(" ", "T")) : Number.NaN;
  if (!Number.isNaN(ms)) return ms * MICROS_PER_MS;
  throw new InvalidArgumentError("It must be a time with a time zone, such as 2026-11-22T22:30:00Z.");
}

/** Parses an instant as `instantArgument` does, or how long ago it was, such as `90s` or `2h`. */
export function agoArgument(text: string): Micros {
  const ms = parseDuration(text);
  if (ms !== undefined && ms <= Date.now()) return (Date.now() - ms) * MICROS_PER_MS;
  try {
    return instantArgument(text);
  } catch {
    throw new InvalidArgumentError("It must be a duration such as 90s or 2h, or a time with a time zone.");
  }
}

/** A repeatable option with fixed choices. Hyphens count as underscores. */
export function repeatedChoice<Word extends string>(
  flags: string,
  description: string,
  words: readonly Word[],
): Option {
  return new Option(flags, description)
    .choices(words)
    .argParser((text: string, before: readonly Word[] | undefined) => {
      const word = words.find((one) => one === text.replaceAll("-", "_"));
      if (word === undefined) throw new InvalidArgumentError(`It must be one of ${words.join(", ")}.`);
      return [...(before ?? []), word];
    });
}

/** A repeatable option for any text. */
export function repeatedText(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string, before: readonly string[] | undefined) => [
    ...(before ?? []),
    text,
  ]);
}

/** A repeatable option for ids. */
export function repeatedId(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string, before: readonly bigint[] | undefined) => [
    ...(before ?? []),
    idArgument(text),
  ]);
}

/** A parser of fixed choices. Hyphens count as underscores. */
export function choiceArgument<Word extends string>(words: readonly Word[]): (text: string) => Word {
  return (text) => {
    const word = words.find((one) => one === text.replaceAll("-", "_"));
    if (word === undefined) throw new InvalidArgumentError(`It must be one of ${words.join(", ")}.`);
    return word;
  };
}
