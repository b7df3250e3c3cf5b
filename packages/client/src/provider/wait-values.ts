import type { WaitUnit } from "./wait-sources.ts";

/** The moment of the response in milliseconds since 1970, by the provider's clock if it is known. */
export type AnsweredAt = number;

/** Longer values are no waits. */
const LONGEST_VALUE = 128;

/** The wait that a field or a header tells, in milliseconds. undefined if it tells none. */
export function waitOf(value: string | number | undefined, unit: WaitUnit, answeredAt: AnsweredAt): number | undefined {
  if (value === undefined) return undefined;
  const text = String(value).trim();
  if (text.length > LONGEST_VALUE) return undefined;
  const number = /^\d{1,20}(?:\.\d{1,20})?$/.test(text) ? Number(text) : undefined;
  if (number === undefined) {
    if (unit === "seconds" || unit === "milliseconds") return undefined;
    const moment = readDate(text, "Z") ?? httpDate(text);
    if (moment !== undefined) return moment - answeredAt;
    return unit === "any" ? wholeDuration(text) : undefined;
  }
  if (unit === "milliseconds") return number;
  if (unit === "seconds") return number * 1_000;
  return sinceEpoch(number, answeredAt) ?? (unit === "any" ? number * 1_000 : undefined);
}

/** A number so large that it must be seconds or milliseconds since 1970. */
export function sinceEpoch(number: number, answeredAt: AnsweredAt): number | undefined {
  if (number < 1e9) return undefined;
  return (number < 1e11 ? number * 1_000 : number) - answeredAt;
}

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/** The number of a month, from 0; undefined for other words. */
export function monthOf(word: string): number | undefined {
  const month = MONTHS.indexOf(word.slice(0, 3).toLowerCase());
  return month < 0 ? undefined : month;
}

/**
 * A date of HTTP in its three forms (RFC 9110, 5.6.7), all in UTC, in milliseconds since 1970: `Sun, 06 Nov 1994 08:49:37 GMT`,
 * `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`.
 */
export function httpDate(text: string): number | undefined {
  const time = String.raw`(\d{2}):(\d{2}):(\d{2})`;
  const dayFirst = new RegExp(
    String.raw`^[A-Z][a-z]{2,8},? (\d{1,2})[ -]([A-Z][a-z]{2})[ -](\d{4}|\d{2}) ${time}(?: (?:GMT|UTC|Z|[+-]00:?00))?$`,
  ).exec(text);
  if (dayFirst !== null) {
    const [, day = "", month = "", year = "", ...clock] = dayFirst;
    return utc(year.length === 2 ? nearestYear(Number(year)) : Number(year), month, day, clock);
  }
  const monthFirst = new RegExp(String.raw`^[A-Z][a-z]{2} ([A-Z][a-z]{2}) {1,2}(\d{1,2}) ${time} (\d{4})$`).exec(text);
  if (monthFirst === null) return undefined;
  const [, month = "", day = "", hours = "", minutes = "", seconds = "", year = ""] = monthFirst;
  return utc(Number(year), month, day, [hours, minutes, seconds]);
}

function utc(year: number, monthName: string, day: string, clock: readonly string[]): number | undefined {
  const month = monthOf(monthName);
  const [hours = 0, minutes = 0, seconds = 0] = clock.map(Number);
  if (month === undefined || hours > 23 || minutes > 59 || seconds > 60) return undefined;
  const at = Date.UTC(year, month, Number(day), hours, minutes, seconds);
  return new Date(at).getUTCDate() === Number(day) || seconds === 60 ? at : undefined;
}

/** RFC 9110: a year of two digits that seems more than 50 years ahead is in the past. */
function nearestYear(year: number): number {
  const now = new Date().getUTCFullYear();
  const full = now - (now % 100) + year;
  return full > now + 50 ? full - 100 : full;
}

const DATE =
  /^(\d{4}-\d{2}-\d{2})(?:t| at | )(\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)(?: ?(z|utc|gmt|[+-]\d{2}:?\d{2}))?(?![\d:])/i;

/**
 * A date at the beginning of a text, as in RFC 3339, in milliseconds since 1970. A blank may stand for the `T`, and seconds may be
 * missing.
 *
 * @param offset of dates that name none: `Z`, `+08:00`. undefined: such a date tells nothing
 */
export function readDate(text: string, offset: string | undefined): number | undefined {
  const [, date, time, zone = offset] = DATE.exec(text) ?? [];
  if (date === undefined || zone === undefined) return undefined;
  const shift = /^[a-z]/i.test(zone) ? "Z" : zone.replace(/^([+-]\d{2})(\d{2})$/, "$1:$2");
  const at = Date.parse(`${date}T${time}${shift}`);
  return Number.isNaN(at) ? undefined : at;
}

const UNITS_MS: readonly (readonly [number, readonly string[]])[] = [
  [1, ["ms", "msec", "msecs", "millisecond", "milliseconds", "毫秒"]],
  [1_000, ["s", "sec", "secs", "second", "seconds", "秒"]],
  [60_000, ["m", "min", "mins", "minute", "minutes", "分", "分钟"]],
  [3_600_000, ["h", "hr", "hrs", "hour", "hours", "小时"]],
  [24 * 3_600_000, ["d", "day", "days", "天"]],
  [7 * 24 * 3_600_000, ["w", "week", "weeks", "周"]],
];
const MS_OF = new Map(UNITS_MS.flatMap(([ms, units]) => units.map((unit) => [unit, ms] as const)));
const AMOUNT = /(\d{1,12}(?:\.\d{1,12})?) {0,2}([a-zA-Z]{1,12}|[\u4e00-\u9fff]{1,2})/y;
const JOINT = /(?:,? and |, ?| )?(?=\d)/y;
const MOST_AMOUNTS = 8;

/** A duration at the beginning of a text, and the place after it: `7m12s`, `1h2m3.5s`, `12ms`, `58 hours`, `3 hours and 43 minutes`. */
export function readDuration(text: string): { readonly ms: number; readonly end: number } | undefined {
  let ms = 0;
  let end = 0;
  let next = 0;
  for (let count = 0; count < MOST_AMOUNTS; count += 1) {
    AMOUNT.lastIndex = next;
    const [, amount = "", unit = ""] = AMOUNT.exec(text) ?? [];
    const known = unitMs(unit);
    if (known === undefined) break;
    ms += Number(amount) * known.ms;
    end = AMOUNT.lastIndex - (unit.length - known.length);
    JOINT.lastIndex = end;
    if (!JOINT.test(text)) break;
    next = JOINT.lastIndex;
  }
  return end === 0 ? undefined : { ms, end };
}

/** A unit; of Chinese, which has no blanks, one at the beginning of the word. */
function unitMs(word: string): { readonly ms: number; readonly length: number } | undefined {
  for (const length of /^[a-zA-Z]/.test(word) ? [word.length] : [2, 1]) {
    const ms = MS_OF.get(word.slice(0, length).toLowerCase());
    if (ms !== undefined) return { ms, length: Math.min(length, word.length) };
  }
  return undefined;
}

function wholeDuration(text: string): number | undefined {
  const read = readDuration(text);
  return read !== undefined && read.end === text.length ? read.ms : undefined;
}
