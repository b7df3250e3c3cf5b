import { Refusal } from "../domain/errors.ts";
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
}

/** How long a caller with too many streams should wait: they end when it ends them, so nobody can say. */
const STREAM_RETRY_MS = 5_000;

export function createCallLimiter({ requestsPerSecond, streamsPerCaller }: CallLimits): CallLimiter {
  const buckets = new TokenBuckets({ perSecond: requestsPerSecond, burst: 2 * requestsPerSecond });
  const streams = new Map<string, number>();
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
  };
}
