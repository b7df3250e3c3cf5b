import type { ExhaustReason } from "../../../../common/contract/enum-names.ts";
import type { ProviderFailure } from "./provider-error.ts";

/** A sign in an error that a quota or an account is used up. */
export interface Sign {
  /** A few words, for logs. */
  readonly name: string;
  readonly reason: ExhaustReason;
  /** The documentation of the provider, or the standard. */
  readonly source: string;
  matches(failure: ProviderFailure): boolean;
}

const named =
  (...names: readonly string[]) =>
  (failure: ProviderFailure): boolean =>
    names.some((name) => failure.names.has(name));
const answered =
  (status: number) =>
  (failure: ProviderFailure): boolean =>
    failure.statuses.has(status);
const says =
  (...phrases: readonly string[]) =>
  (failure: ProviderFailure): boolean =>
    phrases.some((phrase) => failure.text.includes(phrase));

/**
 * The first match counts: many providers report an empty account as "too many requests", and waiting does not fill it. An
 * overloaded provider (Anthropic's 529, a 503) is not in the table: provider overload is not an exhaustion.
 */
export const SIGNS: readonly Sign[] = [
  {
    name: "HTTP 402",
    reason: "billing",
    source:
      "RFC 9110, 15.5.3 Payment Required; so DeepSeek (https://api-docs.deepseek.com/quick_start/error_codes), OpenRouter (https://openrouter.ai/docs/api-reference/errors) and Anthropic's billing_error",
    matches: answered(402),
  },
  {
    name: "Anthropic billing_error",
    reason: "billing",
    source: "Anthropic API, Errors: https://docs.anthropic.com/en/api/errors",
    matches: named("billing_error"),
  },
  {
    name: "Anthropic credit balance",
    reason: "billing",
    source: "Anthropic API, a 400 invalid_request_error of this sentence: https://docs.anthropic.com/en/api/errors",
    matches: says("credit balance is too low"),
  },
  {
    name: "OpenAI insufficient_quota",
    reason: "billing",
    source:
      "OpenAI API, Error codes, 429 You exceeded your current quota: https://platform.openai.com/docs/guides/error-codes",
    matches: named("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"),
  },
  {
    name: "OpenAI quota, as a sentence",
    reason: "billing",
    source:
      "OpenAI API, the message of the same error, where a library kept nothing else: https://platform.openai.com/docs/guides/error-codes",
    matches: says(
      "exceeded your current quota, please check your plan and billing details. for more information on this error, read the docs: https://platform.openai.com",
    ),
  },
  {
    name: "Moonshot exceeded_current_quota_error",
    reason: "billing",
    source: "Moonshot AI API, Errors: https://platform.moonshot.ai/docs/api/chat",
    matches: named("exceeded_current_quota_error"),
  },
  {
    name: "Google BILLING_DISABLED",
    reason: "billing",
    source:
      "google.api.ErrorReason: https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto",
    matches: named("billing_disabled"),
  },
  {
    name: "Anthropic rate_limit_error",
    reason: "rate_limit",
    source:
      "Anthropic API, Errors, also within a stream, where no status tells it: https://docs.anthropic.com/en/api/errors",
    matches: named("rate_limit_error"),
  },
  {
    name: "OpenAI rate_limit_exceeded",
    reason: "rate_limit",
    source: "OpenAI API, Rate limits, also within a stream: https://platform.openai.com/docs/guides/rate-limits",
    matches: named("rate_limit_exceeded"),
  },
  {
    name: "Google RESOURCE_EXHAUSTED",
    reason: "rate_limit",
    source: "Gemini API, Troubleshooting: https://ai.google.dev/gemini-api/docs/troubleshooting; google.rpc.Code",
    // As a `status` only: errors of our own service have a `code` of that name.
    matches: named("status=resource_exhausted"),
  },
  {
    name: "AWS ThrottlingException",
    reason: "rate_limit",
    source:
      "Amazon Bedrock, InvokeModel, Errors: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html",
    matches: named("throttlingexception", "servicequotaexceededexception"),
  },
  {
    name: "HTTP 429",
    reason: "rate_limit",
    source: "RFC 6585, 4. Too Many Requests",
    matches: answered(429),
  },
];
