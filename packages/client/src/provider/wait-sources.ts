// Plain data, which other languages share: `npm run generate` writes it to packages/client/provider-errors.json.

/**
 * How a value tells a wait. `seconds` and `milliseconds`: a number of them. `moment`: a date, or seconds or milliseconds since 1970.
 * `any`: a number of seconds, a duration such as `6m0s` or `58 hours`, or a moment.
 */
export type WaitUnit = "seconds" | "milliseconds" | "moment" | "any";

/** A field of the error, or a header, that tells how long to wait. */
export interface WaitSource {
  /** In any case. */
  readonly name: string;
  readonly unit: WaitUnit;
  /** The documentation of the provider, the standard, or a public report. */
  readonly source: string;
}

/** A budget that fills up again. Its headers come with every response. */
export interface Budget {
  /** Headers with the time until it is full again. The first one that tells a wait counts. */
  readonly reset: readonly string[];
  /** The budget is used up if the value of this header is 0 or less. */
  readonly remaining?: string;
  /** The budget is used up if the value of this header is 100 or more. */
  readonly usedPercent?: string;
  /** The budget is used up if the value of this header is `rejected`. */
  readonly status?: string;
  /** The budget is used up if the header `BudgetFamily.claim` has this value, and no status says more. */
  readonly claim?: string;
}

/** The budgets of a provider. */
export interface BudgetFamily {
  readonly name: string;
  readonly source: string;
  readonly budgets: readonly Budget[];
  /** The header that names the budget at fault. */
  readonly claim?: string;
  /** Every response of the family says which budget is used up. If none is, the refusal has another cause, and they tell no wait. */
  readonly complete?: true;
}

/** Fields of the body. The first one that tells a wait counts. Case, `_` and `-` do not count in their names. */
export const WAIT_FIELDS: readonly WaitSource[] = [
  {
    name: "retryDelay",
    unit: "any",
    source: "google.rpc.RetryInfo, a Duration in JSON: https://cloud.google.com/apis/design/errors#error_details",
  },
  {
    name: "resets_in_seconds",
    unit: "seconds",
    source: "Codex: https://github.com/router-for-me/CLIProxyAPI/issues/1666",
  },
  {
    name: "quotaResetDelay",
    unit: "any",
    source: "Gemini Code Assist: https://github.com/google-gemini/gemini-cli/issues/29425",
  },
  {
    name: "retry_after_ms",
    unit: "milliseconds",
    source: "the header of this name, as proxies repeat it; RFC 9110, 10.2.3",
  },
  { name: "retry_after_seconds", unit: "seconds", source: "Retry-After, as proxies repeat it; RFC 9110, 10.2.3" },
  { name: "retry_after", unit: "any", source: "Retry-After, as proxies repeat it; RFC 9110, 10.2.3" },
  {
    name: "resets_at",
    unit: "moment",
    source:
      "Codex: https://github.com/router-for-me/CLIProxyAPI/issues/1666; Claude CLI: https://github.com/openclaw/openclaw/issues/80514",
  },
  {
    name: "quotaResetTimeStamp",
    unit: "moment",
    source: "Gemini Code Assist: https://github.com/google-gemini/gemini-cli/issues/29425",
  },
  ...["resets_in", "reset_in", "reset_after_seconds", "reset_after"].map(
    (name): WaitSource => ({ name, unit: "any", source: "as resets_in_seconds, in proxies; RFC 9110, 10.2.3" }),
  ),
  ...["reset_at", "reset_time"].map(
    (name): WaitSource => ({ name, unit: "moment", source: "as resets_at, in proxies; RFC 3339" }),
  ),
];

/** Headers for this request: when the client should retry. The first one that tells a wait counts. */
export const WAIT_HEADERS: readonly WaitSource[] = [
  {
    name: "retry-after-ms",
    unit: "milliseconds",
    source:
      "Azure OpenAI and OpenAI send it beside Retry-After, as their SDKs read it: https://github.com/openai/openai-node/blob/master/src/client.ts",
  },
  { name: "x-ms-retry-after-ms", unit: "milliseconds", source: "https://learn.microsoft.com/azure/ai-services/openai" },
  { name: "retry-after", unit: "any", source: "RFC 9110, 10.2.3 Retry-After: seconds or an HTTP date" },
  {
    name: "x-ratelimit-user-retry-after",
    unit: "seconds",
    source:
      "GitHub Copilot, as its clients read it beside Retry-After: https://github.com/github/copilot-cli/issues/2740",
  },
];

const unified = "anthropic-ratelimit-unified";

/** Only of rate limits: a response to an empty account carries them, too, and they say nothing of it. */
export const BUDGETS: readonly BudgetFamily[] = [
  {
    name: `${unified}-*`,
    source: "Claude subscriptions: https://github.com/router-for-me/CLIProxyAPI/pull/3148",
    claim: `${unified}-representative-claim`,
    complete: true,
    budgets: [
      { window: "5h", claim: "five_hour" },
      { window: "7d", claim: "seven_day" },
      { window: "7d_opus", claim: "seven_day_opus" },
      { window: "7d_sonnet", claim: "seven_day_sonnet" },
      { window: "7d_oi", claim: "seven_day_oi" },
    ]
      .map(
        ({ window, claim }): Budget => ({
          reset: [`${unified}-${window}-reset`],
          status: `${unified}-${window}-status`,
          claim,
        }),
      )
      .concat({ reset: [`${unified}-reset`], status: `${unified}-status` }),
  },
  {
    name: "anthropic-ratelimit-*",
    source:
      "Anthropic API, Rate limits, Response headers, RFC 3339: https://docs.anthropic.com/en/api/rate-limits#response-headers",
    budgets: ["requests", "tokens", "input-tokens", "output-tokens"].map((name) => ({
      reset: [`anthropic-ratelimit-${name}-reset`],
      remaining: `anthropic-ratelimit-${name}-remaining`,
    })),
  },
  {
    name: "x-codex-*",
    source: "Codex: https://github.com/icebear0828/codex-proxy/issues/65",
    complete: true,
    budgets: ["primary", "secondary"].map((name) => ({
      reset: [`x-codex-${name}-reset-after-seconds`, `x-codex-${name}-reset-at`],
      usedPercent: `x-codex-${name}-used-percent`,
    })),
  },
  {
    name: "x-ratelimit-reset-*",
    source:
      "OpenAI API, Rate limits, headers, durations such as 6m0s, 1s and 12ms: https://platform.openai.com/docs/guides/rate-limits; so Groq: https://console.groq.com/docs/rate-limits; plain seconds: Cerebras, https://inference-docs.cerebras.ai/support/rate-limits, and Azure",
    budgets: ["requests", "tokens", "input-tokens", "output-tokens"]
      .flatMap((name) => ["", "-minute", "-hour", "-day"].map((window) => `${name}${window}`))
      .concat("project-tokens")
      .map((name) => ({ reset: [`x-ratelimit-reset-${name}`], remaining: `x-ratelimit-remaining-${name}` })),
  },
  {
    name: "x-ratelimit-reset, ratelimit-reset",
    source:
      "seconds to wait, as in draft-ietf-httpapi-ratelimit-headers, seconds since 1970 (GitHub Models) or milliseconds since 1970 (https://openrouter.ai/docs/api-reference/limits)",
    budgets: [
      { reset: ["x-ratelimit-reset"], remaining: "x-ratelimit-remaining" },
      { reset: ["ratelimit-reset"], remaining: "ratelimit-remaining" },
      { reset: ["ratelimitbysize-reset"], remaining: "ratelimitbysize-remaining" },
      { reset: ["x-ratelimit-timeremaining"] },
    ],
  },
];

/** Words before a wait in a message. "Retrying in" is not among them: so programs tell their own wait. */
export const WAIT_PHRASES: readonly string[] = [
  "retry-after-ms",
  "retry_after_ms",
  "retry_delay",
  "retrydelay",
  "retry-after",
  "retry_after",
  "retry after",
  "retry in",
  "retry again in",
  "retry at",
  "try again in",
  "try again after",
  "try again at",
  "try again on",
  "try again",
  "wait",
  "reset in",
  "reset after",
  "reset at",
  "reset on",
  "resets in",
  "resets after",
  "resets at",
  "resets on",
  "resets",
  "reset time",
  "limit reached|",
  "refreshes in",
  "refreshes at",
  "renews in",
  "renews at",
  "available in",
  "available again in",
  "available again at",
  "available at",
  "regain access on",
  "regain access at",
  "regain access in",
  "resume in",
  "resume at",
  "come back in",
  "将在",
  "请在",
  "请等待",
];

/** Words that may stand between a phrase and its wait. */
export const WAIT_FILLERS: readonly string[] = [
  "in",
  "at",
  "on",
  "after",
  "for",
  "until",
  "about",
  "approximately",
  "around",
  "another",
  "at least",
  "up to",
  "is",
  "again",
];

/** Providers whose messages name dates without a zone, by a name in the error. */
export const DATE_ZONES: readonly {
  readonly names: readonly string[];
  readonly offset: string;
  readonly source: string;
}[] = [
  {
    names: ["code=1308", "code=1310", ...[1316, 1317, 1318, 1319, 1320, 1321].map((code) => `code=${code}`)],
    offset: "+08:00",
    source: "z.ai, Beijing time: https://github.com/can1357/oh-my-pi/issues/11014",
  },
];
