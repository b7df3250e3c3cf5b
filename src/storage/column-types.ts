import pg from "pg";
import type { Micros } from "../../common/contract/time.ts";

const { builtins } = pg.types;

/**
 * Parsers of columns: `bigint` without loss, `timestamptz` as microseconds (a `Date` would round them). They are set
 * for each connection, because other users of the process may share the library.
 */
export const columnTypes = {
  getTypeParser(oid: number, format?: string) {
    if (format === "binary") return pg.types.getTypeParser(oid, "binary");
    if (oid === builtins.INT8) return BigInt;
    if (oid === builtins.TIMESTAMPTZ) return parseTimestamptz;
    return pg.types.getTypeParser(oid, "text");
  },
};

const TIMESTAMPTZ = /^\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00$/;
const UTC = "+00";

/**
 * Parses PostgreSQL's ISO format in UTC, which each connection of this service uses.
 *
 * @throws TypeError for another format
 */
export function parseTimestamptz(text: string): Micros {
  if (!TIMESTAMPTZ.test(text)) throw new TypeError(`not a timestamptz in UTC: ${text}`);
  // The year may have more than four digits, so offsets start at its end.
  const year = text.indexOf("-");
  const ms = Date.UTC(
    digits(text, 0, year),
    digits(text, year + 1, year + 3) - 1,
    digits(text, year + 4, year + 6),
    digits(text, year + 7, year + 9),
    digits(text, year + 10, year + 12),
    digits(text, year + 13, year + 15),
  );
  const fraction = year + 16;
  const end = text.length - UTC.length;
  if (fraction > end) return ms * 1_000;
  return ms * 1_000 + digits(text, fraction, end) * 10 ** (6 - (end - fraction));
}

const ZERO = 48;

/** Parses digits without making strings: a row of an agent has up to six timestamps. */
function digits(text: string, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at += 1) value = value * 10 + text.charCodeAt(at) - ZERO;
  return value;
}
