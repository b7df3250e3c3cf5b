import pg from "pg";
import type { Micros } from "../domain/time.ts";

const { builtins } = pg.types;

/**
 * How columns become values: `bigint` without loss, `timestamptz` as microseconds (a `Date` would round them). A
 * setting of each connection rather than of the library, which other users of the process may share.
 */
export const columnTypes = {
  getTypeParser(oid: number, format?: string) {
    if (format === "binary") return pg.types.getTypeParser(oid, "binary");
    if (oid === builtins.INT8) return BigInt;
    if (oid === builtins.TIMESTAMPTZ) return parseTimestamptz;
    return pg.types.getTypeParser(oid, "text");
  },
};

const TIMESTAMPTZ = /^(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?\+00$/;

/** PostgreSQL's ISO form in UTC, which is what every connection of ours asks for. */
export function parseTimestamptz(text: string): Micros {
  const match = TIMESTAMPTZ.exec(text);
  if (match === null) throw new TypeError(`not a timestamptz in UTC: ${text}`);
  const [, year, month, day, hour, minute, second, fraction = ""] = match;
  const ms = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  return ms * 1_000 + Number(fraction.padEnd(6, "0"));
}
