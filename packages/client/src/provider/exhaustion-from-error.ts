import type { ExhaustReason } from "../../../../common/contract/enum-names.ts";
import { kindOf } from "./kind-of-failure.ts";
import { readFailure } from "./provider-error.ts";
import { waitOfFailure } from "./waits.ts";

/** An exhaustion, read from the error of a provider. `AgentHandle.exhausted` takes it. */
export interface ProviderExhaustion {
  readonly reason: ExhaustReason;
  /** The time until recovery in milliseconds, at most 366 days. Undefined if the provider named none. */
  readonly retryAfterMs: number | undefined;
  /** The source of the values in a few words, for logs. */
  readonly evidence: string;
}

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
  const kind = kindOf(failure);
  if (kind === undefined || kind.verdict === "none") return undefined;
  const wait = waitOfFailure(failure, now, kind.verdict === "rate_limit");
  return {
    reason: kind.verdict,
    retryAfterMs: wait?.ms,
    evidence: wait === undefined ? kind.name : `${kind.name}, ${wait.evidence}`,
  };
}
