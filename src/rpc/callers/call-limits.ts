import { Refusal } from "../../domain/errors.ts";
import { TokenBuckets } from "./token-buckets.ts";

export interface CallLimits {
  /** Calls that one caller may begin each second, unary ones and streams; twice as many at once. */
  readonly requestsPerSecond: number;
  /** Streams that one caller may have open. */
  readonly streamsPerCaller: number;
}

/**
 * Limits for the worst case: behind a proxy, or without credentials, a whole fleet is one caller. A unary call costs 50 to
 * 500 µs of CPU, so one core serves fewer than 20 000 a second. An idle stream costs 12 to 30 KiB, so 100 000 of them, one for each
 * agent of a replica, hold 3 GiB at most.
 */
export const DEFAULT_CALL_LIMITS: CallLimits = { requestsPerSecond: 20_000, streamsPerCaller: 100_000 };

/**
 * Values in the filters of open watches, of one caller and in total. The filter, the watch's index and the index of all watches
 * hold each value, which takes half a kilobyte. 250 000 are ten thousand watches of twenty-five agents each.
 */
export const FILTER_VALUES_PER_CALLER = 250_000;
export const FILTER_VALUES = 1_000_000;

/** Limits the calls, streams and filters of each caller. The key of a caller is a principal's name or an address. */
export interface CallLimiter {
  /** Counts a call. Returns the error if the caller may not begin one now, undefined if it may. */
  begin(key: string): Refusal | undefined;
  /**
   * Counts a stream until the returned function is called, which may be repeated.
   *
   * @throws Refusal when the caller has too many open
   */
  holdStream(key: string): () => void;
  /**
   * Counts the values of a stream's filter until the returned function is called. It must be called once.
   *
   * @throws Refusal when the caller, or all callers together, hold too many
   */
  holdValues(key: string, count: number): () => void;
}

/** How long a caller with too many streams should wait. An estimate: its streams end when the caller ends them. */
const STREAM_RETRY_MS = 5_000;

export function createCallLimiter({ requestsPerSecond, streamsPerCaller }: CallLimits): CallLimiter {
  const buckets = new TokenBuckets({ perSecond: requestsPerSecond, burst: 2 * requestsPerSecond });
  const streams = new Map<string, number>();
  const values = new Map<string, number>();
  let allValues = 0;
  return {
    begin: (key) => {
      const retryAfterMs = buckets.take(key);
      if (retryAfterMs === 0) return undefined;
      return new Refusal("LIMIT_EXCEEDED", `a caller may begin ${requestsPerSecond} calls a second: send fewer`, {
        metadata: { limit: "requestsPerSecond", requestsPerSecond: String(requestsPerSecond) },
        retryAfterMs,
      });
    },
    holdStream: (key) => {
      const open = streams.get(key) ?? 0;
      if (open >= streamsPerCaller) {
        throw new Refusal(
          "LIMIT_EXCEEDED",
          `a caller may have ${streamsPerCaller} streams open: put more agents on each, or end some`,
          {
            metadata: { limit: "streamsPerCaller", streamsPerCaller: String(streamsPerCaller) },
            retryAfterMs: STREAM_RETRY_MS,
          },
        );
      }
      streams.set(key, open + 1);
      let held = true;
      return () => {
        if (!held) return;
        held = false;
        const left = (streams.get(key) ?? 1) - 1;
        if (left > 0) streams.set(key, left);
        else streams.delete(key);
      };
    },
    holdValues: (key, count) => {
      const held = (values.get(key) ?? 0) + count;
      if (held > FILTER_VALUES_PER_CALLER) {
        throw tooManyValues("filterValuesPerCaller", FILTER_VALUES_PER_CALLER, "of a caller's open watches");
      }
      if (allValues + count > FILTER_VALUES) throw tooManyValues("filterValues", FILTER_VALUES, "of all open watches");
      values.set(key, held);
      allValues += count;
      return () => {
        allValues -= count;
        const left = (values.get(key) ?? count) - count;
        if (left > 0) values.set(key, left);
        else values.delete(key);
      };
    },
  };
}

function tooManyValues(limit: string, most: number, whose: string): Refusal {
  return new Refusal(
    "LIMIT_EXCEEDED",
    `The filters ${whose} would hold more than ${most} values. Filter by claw, or end some watches.`,
    {
      metadata: { limit, [limit]: String(most) },
      retryAfterMs: STREAM_RETRY_MS,
    },
  );
}
