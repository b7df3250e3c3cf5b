import type { ProviderFailure } from "./provider-error.ts";

/** The moment of the response in milliseconds since 1970, by the provider's clock if it is known. */
export type AnsweredAt = number;

/** A field in which a provider says how long to wait. */
export interface Deadline {
  readonly name: string;
  /** The documentation of the provider, or the standard. */
  readonly source: string;
  /** The time to wait in milliseconds from now; undefined if the field is missing. */
  waitMs(failure: ProviderFailure, answeredAt: AnsweredAt): number | undefined;
}

/** Fields for this request: when the client should retry. The first one that is there counts. */
export const RETRY_HINTS: readonly Deadline[] = [
  {
    name: "retry-after-ms",
    source:
      "Azure OpenAI and OpenAI send it beside Retry-After, as their SDKs read it: https://github.com/openai/openai-node/blob/master/src/client.ts",
    waitMs: (failure) => millis(failure.header("retry-after-ms") ?? failure.header("x-ms-retry-after-ms"), 1),
  },
  {
    name: "retry-after",
    source: "RFC 9110, 10.2.3 Retry-After: seconds or an HTTP date",
    waitMs: (failure, answeredAt) => retryAfter(failure.header("retry-after"), answeredAt),
  },
  {
    name: "google.rpc.RetryInfo",
    source:
      "google.rpc.RetryInfo in `details`, a Duration in JSON: https://cloud.google.com/apis/design/errors#error_details",
    waitMs: ({ details }) => goDuration(details.find(({ type }) => type === "RetryInfo")?.retryDelay),
  },
];

/** A budget that fills up again, sent with every response. */
interface Budget {
  readonly reset: string;
  readonly remaining: string;
}

const budgets = (prefix: string, suffix: string, names: readonly string[]): Budget[] =>
  names.map((name) => ({
    reset: `${prefix}${name}-reset${suffix}`,
    remaining: `${prefix}${name}-remaining${suffix}`,
  }));

/** Only of rate limits: an answer to an empty account carries them, too, and they say nothing of it. */
export const RESETS: readonly Deadline[] = [
  {
    name: "anthropic-ratelimit-*-reset",
    source:
      "Anthropic API, Rate limits, Response headers, RFC 3339: https://docs.anthropic.com/en/api/rate-limits#response-headers; the unified ones of subscriptions in seconds since 1970",
    waitMs: (failure, answeredAt) =>
      longest(
        failure,
        [
          ...budgets("anthropic-ratelimit-", "", ["requests", "tokens", "input-tokens", "output-tokens"]),
          ...budgets("anthropic-ratelimit-", "", ["unified", "unified-5h", "unified-7d"]),
        ],
        (value) => instant(value, answeredAt),
      ),
  },
  {
    name: "x-ratelimit-reset-*",
    source:
      "OpenAI API, Rate limits, headers, durations such as 6m0s, 1s and 12ms: https://platform.openai.com/docs/guides/rate-limits; so Groq: https://console.groq.com/docs/rate-limits",
    waitMs: (failure) =>
      longest(
        failure,
        ["requests", "tokens", "project-tokens"].map((name) => ({
          reset: `x-ratelimit-reset-${name}`,
          remaining: `x-ratelimit-remaining-${name}`,
        })),
        goDuration,
      ),
  },
  {
    name: "x-ratelimit-reset, ratelimit-reset",
    source:
      "seconds to wait, as in draft-ietf-httpapi-ratelimit-headers, seconds since 1970 (GitHub Models) or milliseconds since 1970 (https://openrouter.ai/docs/api-reference/limits)",
    waitMs: (failure, answeredAt) => {
      const value = failure.header("x-ratelimit-reset") ?? failure.header("ratelimit-reset");
      return value === undefined ? undefined : (instant(value, answeredAt) ?? millis(value, 1_000));
    },
  },
];

/** The longest time of the budgets that are used up; of all budgets, if none says that it is used up. */
function longest(
  failure: ProviderFailure,
  all: readonly Budget[],
  waitMs: (value: string) => number | undefined,
): number | undefined {
  const waits = all.flatMap(({ reset, remaining }) => {
    const value = failure.header(reset);
    const ms = value === undefined ? undefined : waitMs(value);
    return ms === undefined ? [] : [{ ms, usedUp: Number(failure.header(remaining) ?? Number.NaN) <= 0 }];
  });
  const usedUp = waits.filter((one) => one.usedUp);
  const counted = usedUp.length > 0 ? usedUp : waits;
  return counted.length === 0 ? undefined : Math.max(...counted.map(({ ms }) => ms));
}

function retryAfter(value: string | undefined, answeredAt: AnsweredAt): number | undefined {
  return value === undefined ? undefined : (millis(value, 1_000) ?? httpDate(value, answeredAt));
}

/** @param unitMs the length of one unit of the value, in milliseconds */
function millis(value: string | undefined, unitMs: number): number | undefined {
  if (value === undefined || !/^\d+(\.\d+)?$/.test(value)) return undefined;
  return Number(value) * unitMs;
}

/** Only dates with the name of a day, since Date.parse accepts nearly everything. */
function httpDate(value: string, answeredAt: AnsweredAt): number | undefined {
  if (!/^[A-Z][a-z]{2,8},? .*\d{2}:\d{2}:\d{2}/.test(value)) return undefined;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : at - answeredAt;
}

/** RFC 3339, or a number so large that it must be seconds or milliseconds since 1970. */
function instant(value: string, answeredAt: AnsweredAt): number | undefined {
  if (/^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}/.test(value)) {
    const at = Date.parse(value);
    return Number.isNaN(at) ? undefined : at - answeredAt;
  }
  const number = millis(value, 1);
  if (number === undefined || number < 1e9) return undefined;
  return (number < 1e12 ? number * 1_000 : number) - answeredAt;
}

const UNITS_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };

/** Durations in the format of Go and of protobuf's JSON: `6m0s`, `1h2m3.5s`, `12ms`, `34s`. */
function goDuration(value: string | undefined): number | undefined {
  if (value === undefined || !/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(value)) return undefined;
  let ms = 0;
  for (const [, amount = "", , unit = ""] of value.matchAll(/(\d+(\.\d+)?)(h|ms|m|s)/g)) {
    ms += Number(amount) * (UNITS_MS[unit] ?? 0);
  }
  return ms;
}
