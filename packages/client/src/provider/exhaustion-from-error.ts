import type { ExhaustReason } from "../../../../src/contract/words.ts";
import { type AnsweredAt, RESETS, RETRY_HINTS } from "./deadlines.ts";
import { type ProviderFailure, readFailure } from "./failure.ts";
import { SIGNS } from "./signs.ts";

/** An exhaustion as a provider's answer tells it: what `AgentHandle.exhausted` takes. */
export interface ProviderExhaustion {
  readonly reason: ExhaustReason;
  /** The time until recovery in milliseconds, at most 366 days. Undefined where the provider named none. */
  readonly retryAfterMs: number | undefined;
  /** What it was taken from, in a few words, for logs. */
  readonly evidence: string;
}

/** A deadline further ahead is a mistake of units, and the service would refuse it. */
const FURTHEST_MS = 366 * 24 * 3_600_000;

/**
 * Makes an exhaustion of the error that a call to a model provider ended with: of a rate limit that was hit, or of an
 * account that is empty. Takes what fetch answers (a Response; add the parsed body as `{ status, headers, body }`, since
 * only that tells an empty account from a rate limit with some providers) and what axios, got, the AI SDK and the SDKs of
 * OpenAI, Anthropic, Google and AWS throw, also as the cause of another error.
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
 * @param now the present in milliseconds since 1970. Default: the machine's
 * @returns undefined for everything else, a provider that is overloaded included. Never throws
 */
export function exhaustionFromError(error: unknown, now: number = Date.now()): ProviderExhaustion | undefined {
  const failure = readFailure(error);
  const sign = SIGNS.find((one) => one.matches(failure));
  if (sign === undefined) return undefined;
  const answeredAt = dateOf(failure) ?? now;
  for (const deadline of sign.reason === "rate_limit" ? [...RETRY_HINTS, ...RESETS] : RETRY_HINTS) {
    const retryAfterMs = believable(deadline.waitMs(failure, answeredAt));
    if (retryAfterMs === undefined) continue;
    return { reason: sign.reason, retryAfterMs, evidence: `${sign.name}, ${deadline.name}` };
  }
  return { reason: sign.reason, retryAfterMs: undefined, evidence: sign.name };
}

/** What is past, or beyond any provider's word, says nothing: the service chooses then. */
function believable(ms: number | undefined): number | undefined {
  return ms !== undefined && ms > 0 && ms <= FURTHEST_MS ? Math.ceil(ms) : undefined;
}

/** Deadlines that are moments are the provider's, by its clock: that need not be ours. */
function dateOf(failure: ProviderFailure): AnsweredAt | undefined {
  const date = Date.parse(failure.header("date") ?? "");
  return Number.isNaN(date) ? undefined : date;
}
