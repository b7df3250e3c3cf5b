import { Refusal } from "../../domain/errors.ts";
import { TokenBuckets } from "./token-buckets.ts";

export interface CallLimits {
  /** Calls a second that one caller may begin, unary ones and streams; twice as many at once. */
  readonly requestsPerSecond: number;
  /** Streams that one caller may have open. */
  readonly streamsPerCaller: number;
}

/**
 * Bounds for the worst, not a share for everybody: behind a proxy, or without credentials, a caller may be a whole fleet. A
 * unary call costs 50 to 500 µs of CPU: 20 000 a second are more than one core serves. An idle stream costs 12 to 30 KiB:
 * 100 000, as many as agents that each have one of their own on a replica, are 3 GiB at most.
 */
export const DEFAULT_CALL_LIMITS: CallLimits = { requestsPerSecond: 20_000, streamsPerCaller: 100_000 };

/**
 * What filters of open watches hold, of one caller and of all together. A value is remembered in the filter, in the watch's own
 * index and in that of all watches: half a kilobyte. 250 000 are ten thousand watches of twenty-five agents each.
 */
export const FILTER_VALUES_PER_CALLER = 250_000;
export const FILTER_VALUES = 1_000_000;

/** Limits what one caller can begin and hold. Callers are told apart by a key: a principal's name, or an address. */
export interface CallLimiter {
  /** Why the caller may not begin a call now; undefined if it may, which is counted. */
  begin(key: string): Refusal | undefined;
  /**
   * Counts a stream until the function that comes back is called, which may be repeated.
   *
   * @throws Refusal when the caller has too many open
   */
  holdStream(key: string): () => void;
  /**
   * Counts the values of a stream's filter until the function that comes back is called, once.
   *
   * @throws Refusal when the caller, or all together, hold too many
   */
  holdValues(key: string, count: number): () => void;
}

/** How long a caller with too many streams should wait: they end when it ends them, so nobody can say. */
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
