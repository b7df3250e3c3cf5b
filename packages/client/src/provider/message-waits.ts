import { WAIT_FILLERS, WAIT_PHRASES } from "./wait-sources.ts";
import { type AnsweredAt, monthOf, readDate, readDuration, sinceEpoch } from "./wait-values.ts";

/** How much after a phrase may tell the wait. */
const LONGEST_TELLING = 96;
const MOST_PHRASES = 64;

const alternatives = (words: readonly string[]): string =>
  [...words]
    .sort((one, other) => other.length - one.length)
    .map((word) => word.replace(/[|\\^$.*+?()[\]{}]/g, String.raw`\$&`))
    .join("|");
/** Chinese has no spaces between words. */
const PHRASE = new RegExp(String.raw`(?<![\p{Script=Latin}\p{N}_])(?:${alternatives(WAIT_PHRASES)})`, "gu");
const FILLER = new RegExp(String.raw`^(?:[\s:=~"'({]{1,3}|(?:${alternatives(WAIT_FILLERS)})(?![\p{L}\p{N}_]))`, "u");
const MOST_FILLERS = 6;

/**
 * The wait that a message tells in its words: "try again in 7m12s", "please wait 58 hours", "resets at 2026-05-15T15:00:00Z",
 * "resets 9am (America/Chicago)". The first one counts.
 *
 * @param text in lower case
 * @param offset of dates that name no zone; undefined: they tell nothing
 * @returns milliseconds; undefined if the message tells none
 */
export function waitInWords(text: string, answeredAt: AnsweredAt, offset: string | undefined): number | undefined {
  let count = 0;
  for (const { 0: phrase, index } of text.matchAll(PHRASE)) {
    count += 1;
    if (count > MOST_PHRASES) return undefined;
    const begin = index + phrase.length;
    const wait = readTelling(phrase, text.slice(begin, begin + LONGEST_TELLING), answeredAt, offset);
    if (wait !== undefined && wait > 0) return wait;
  }
  return undefined;
}

function readTelling(
  phrase: string,
  telling: string,
  answeredAt: AnsweredAt,
  offset: string | undefined,
): number | undefined {
  let rest = telling;
  for (let count = 0; count < MOST_FILLERS; count += 1) {
    const filler = FILLER.exec(rest)?.[0];
    if (filler === undefined) break;
    rest = rest.slice(filler.length);
  }
  // Google's SDK for Python prints `retry_delay { seconds: 41 }`. A word may stand for the number one.
  rest = rest.replace(/^seconds: {0,2}(\d{1,9})/, "$1 s").replace(/^(?:an?|one) (?=minute|hour|day|week)/, "1 ");
  const duration = readDuration(rest);
  if (duration !== undefined) return duration.ms;
  const date = readDate(rest, offset);
  if (date !== undefined) return date - answeredAt;
  const clock = readClock(rest, answeredAt);
  if (clock !== undefined) return clock - answeredAt;
  const number = /^\d{1,13}(?:\.\d{1,6})?(?![\w:-])/.exec(rest)?.[0];
  if (number === undefined) return undefined;
  const wait = sinceEpoch(Number(number), answeredAt);
  if (wait !== undefined) return wait;
  // Only the header's name promises seconds.
  if (/^retry.after.ms$/.test(phrase)) return Number(number);
  return /^retry.after$/.test(phrase) ? Number(number) * 1_000 : undefined;
}

const CLOCK =
  /^(?:([a-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?(?:, (\d{4}))?(?:,| at)? )?(\d{1,2})(?::(\d{2}))?(?: ?(am|pm))?(?: ?\(?(utc|gmt|z|[a-z]{2,20}(?:\/[a-z0-9_+-]{2,30}){1,2})([+-]\d{1,2}(?::?\d{2})?)?\)?)(?![\w/])/;
const DAY_MS = 24 * 3_600_000;

/**
 * An hour of a zone, with or without a day: `9am (America/Chicago)`, `10:57 pm gmt-3`, `oct 9, 5pm (Europe/Berlin)`. Without a day, the
 * next such hour.
 */
function readClock(text: string, answeredAt: AnsweredAt): number | undefined {
  const [all, monthName, dayText, yearText, hourText = "", minuteText = "0", half, zone = "", shift] =
    CLOCK.exec(text) ?? [];
  if (all === undefined || (half === undefined && !text.startsWith(":", text.indexOf(hourText) + hourText.length))) {
    return undefined;
  }
  const hour = half === undefined ? Number(hourText) : (Number(hourText) % 12) + (half === "pm" ? 12 : 0);
  const minute = Number(minuteText);
  if (hour > 23 || minute > 59) return undefined;
  const offsetMs = (at: number): number | undefined =>
    zone.includes("/") ? offsetOfZone(zone, at) : offsetOfShift(shift);
  const now = offsetMs(answeredAt);
  if (now === undefined) return undefined;
  const there = new Date(answeredAt + now);
  const month = monthName === undefined ? there.getUTCMonth() : monthOf(monthName);
  if (month === undefined) return undefined;
  const day = dayText === undefined ? there.getUTCDate() : Number(dayText);
  const year = yearText === undefined ? there.getUTCFullYear() : Number(yearText);
  const moment = (years: number, days: number): number => {
    const wall = Date.UTC(year + years, month, day + days, hour, minute);
    return wall - (offsetMs(wall - now) ?? now);
  };
  const at = moment(0, 0);
  if (at > answeredAt || yearText !== undefined) return at;
  // An hour that has passed today is tomorrow's. A day that has passed is that of the next year, unless it is recent.
  if (dayText === undefined) return moment(0, 1);
  return answeredAt - at < 30 * DAY_MS ? at : moment(1, 0);
}

/** The offset of a zone of the IANA, in milliseconds; undefined for unknown zones. */
function offsetOfZone(zone: string, at: number): number | undefined {
  try {
    const format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
    });
    const parts = new Map(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
    const get = (type: Intl.DateTimeFormatPartTypes): number => parts.get(type) ?? 0;
    const wall = Date.UTC(get("year"), get("month") - 1, get("day"), get("hour"), get("minute"));
    return wall - Math.floor(at / 60_000) * 60_000;
  } catch {
    return undefined;
  }
}

/** `-3`, `+0530` or `+5:30` after GMT, in milliseconds. */
function offsetOfShift(shift: string | undefined): number {
  const [, sign = "+", hours = "0", minutes = "0"] = /^([+-])(\d{1,2}):?(\d{2})?$/.exec(shift ?? "") ?? [];
  const ms = Number(hours) * 3_600_000 + Number(minutes) * 60_000;
  return sign === "-" ? -ms : ms;
}
