import type { ExhaustReason } from "../../../../common/contract/enum-names.ts";
import { type AnsweredAt, RESETS, RETRY_HINTS } from "./deadlines.ts";
import { SIGNS } from "./exhaustion-signs.ts";
import { type ProviderFailure, readFailure } from "./provider-error.ts";

/** An exhaustion, read from the error of a provider. `AgentHandle.exhausted` takes it. */
export interface ProviderExhaustion {
  readonly reason: ExhaustReason;
  /** The time until recovery in milliseconds, at most 366 days. Undefined if the provider named none. */
  readonly retryAfterMs: number | undefined;
  /** The source of the values in a few words, for logs. */
  readonly evidence: string;
}

/** The service rejects later deadlines. They come from a mistake of units. */
const FURTHEST_MS = 366 * 24 * 3_600_000;

/**
 * Reads the error of a call to a model provider, and returns an exhaustion for a rate limit or an empty account. It takes the errors
 * of axios, got, the AI SDK and the SDKs of OpenAI, Anthropic, Google and AWS, also as the cause of another error, and the Response of
 * fetch. Pass that as `{ status, headers, body }` with the parsed body: some providers tell an empty account from a rate limit only
 * there.
 *
 * @example
 * try {
 *   await anthropic.messages.create(request);
 * } catch (error) {
 *   const exhaustion = exhaustionFromError(error);
 *   if (exhaustion === undefined) throw error;
 *   await agent.exhausted(exhaustion);
 * }
 *
 * @param now the current time in milliseconds since 1970. Default: `Date.now()`
 * @returns undefined for every other error; an overloaded provider is not an exhaustion. Never throws
 */
export function exhaustionFromError(error: unknown, now: number = Date.now()): ProviderExhaustion | undefined {
  const failure = readFailure(error);
  const sign = SIGNS.find((one) => one.matches(failure));
  if (sign === undefined) return undefined;
  const answeredAt = dateOf(failure) ?? now;
  for (const deadline of sign.reason === "rate_limit" ? [...RETRY_HINTS, ...RESETS] : RETRY_HINTS) {
    const retryAfterMs = plausible(deadline.waitMs(failure, answeredAt));
    if (retryAfterMs === undefined) continue;
    return { reason: sign.reason, retryAfterMs, evidence: `${sign.name}, ${deadline.name}` };
  }
  return { reason: sign.reason, retryAfterMs: undefined, evidence: sign.name };
}

/** Ignores times in the past, and those that are too far ahead. The service chooses then. */
function plausible(ms: number | undefined): number | undefined {
  return ms !== undefined && ms > 0 && ms <= FURTHEST_MS ? Math.ceil(ms) : undefined;
}

/** The provider's clock, for deadlines that are moments. It may differ from ours. */
function dateOf(failure: ProviderFailure): AnsweredAt | undefined {
  const date = Date.parse(failure.header("date") ?? "");
  return Number.isNaN(date) ? undefined : date;
}
