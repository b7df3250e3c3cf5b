// Plain data, which other languages share: `npm run generate` writes it to packages/client/provider-errors.json.
import type { ExhaustReason } from "../../../../common/contract/enum-names.ts";

/**
 * A kind of error. All conditions that a kind has must hold; of the values of one condition, one is enough. All are in lower case.
 */
export interface ErrorKind {
  /** A few words, for logs. */
  readonly name: string;
  /** `none`: not an exhaustion. Another error, an overloaded provider, or a request that can never succeed. */
  readonly verdict: ExhaustReason | "none";
  /** The documentation of the provider, the standard, or a public report. */
  readonly source: string;
  /** HTTP statuses, of a field. */
  readonly statuses?: readonly number[];
  /** HTTP statuses that a message names: `429 …`, `status code 429`. */
  readonly statedStatuses?: readonly number[];
  /** Names of the error: `rate_limit_error` in any field, or `type=rate_limit_error` in this one. A `*` stands for any characters. */
  readonly names?: readonly string[];
  /** Parts of the messages. Quotations in them do not count. A `*` stands for at most 40 characters. */
  readonly phrases?: readonly string[];
  /** A message names a limit and a larger request: `Limit 7000, Used 0, Requested ~12903`. */
  readonly requestAboveLimit?: true;
  /**
   * Evidence that is too weak against the status of a provider: the kind matches only if no field has an HTTP status from 400 on
   * but 500 or 502, with which proxies report the errors of providers.
   */
  readonly weak?: true;
}

/**
 * The first match counts. Fields come before messages, except where a provider tells two errors apart by the message alone:
 * many report an empty account as "too many requests", and waiting does not fill it.
 */
export const ERROR_KINDS: readonly ErrorKind[] = [
  {
    name: "error of the HarborForge service",
    verdict: "none",
    source: "https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, as this library throws it",
    names: ["name=callerror", "name=connecterror", "name=reporterror"],
  },
  {
    name: "warning of the Claude CLI",
    verdict: "none",
    source: "https://github.com/openclaw/openclaw/issues/80514: rate_limit_event of a request that succeeded",
    names: ["status=allowed", "status=allowed_warning"],
  },

  // One request that is too large. Waiting does not shrink it, and smaller ones succeed.
  {
    name: "HTTP 413",
    verdict: "none",
    source: "RFC 9110, 15.5.14 Content Too Large; so Groq: https://github.com/cottongeeks/podscript/issues/20",
    statuses: [413],
  },
  {
    name: "request too large",
    verdict: "none",
    source:
      "https://docs.anthropic.com/en/api/errors; https://platform.openai.com/docs/guides/error-codes; GitHub Models' tokens_limit_reached",
    names: [
      "request_too_large",
      "context_length_exceeded",
      "string_above_max_length",
      "contextwindowexceedederror",
      "tokens_limit_reached",
    ],
  },
  {
    name: "request too large, by its message",
    verdict: "none",
    source:
      "OpenAI and Groq report it as rate_limit_exceeded: https://github.com/vanna-ai/vanna-flask/issues/11. Anthropic's long context: https://github.com/Wei-Shaw/sub2api/issues/572",
    phrases: [
      "request too large",
      "request is too large",
      "prompt is too long",
      "input is too long",
      "reduce your message size",
      "input or output tokens must be reduced",
      "maximum context length",
      "context window",
      "required for long context",
      "long context beta is not yet available",
    ],
  },

  {
    name: "invalid request",
    verdict: "none",
    source:
      "https://platform.openai.com/docs/guides/error-codes; their messages quote the request: https://github.com/openclaw/openclaw/issues/12022",
    statuses: [400, 404, 422],
    names: [
      "invalid_value",
      "invalid_type",
      "invalid_prompt",
      "unsupported_*",
      "missing_required_parameter",
      "unknown_parameter",
      "model_not_found",
      "content_filter",
      "content_policy_violation",
    ],
  },
  {
    name: "request above the limit",
    verdict: "none",
    source: "https://github.com/danielmiessler/Fabric/issues/364: Groq reports it as a rate limit, and names a wait",
    requestAboveLimit: true,
  },

  // A provider that is overloaded. The account has quota.
  {
    name: "overloaded provider",
    verdict: "none",
    source:
      "https://docs.anthropic.com/en/api/errors (529), https://github.com/MoonshotAI/kimi-cli/issues/2209 (429), Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html (429 ModelNotReadyException), Cerebras: https://inference-docs.cerebras.ai/support/error (429 queue_exceeded), https://github.com/su-kaka/gcli2api/issues/313 (429 MODEL_CAPACITY_EXHAUSTED)",
    names: [
      "*overloaded*",
      "modelnotreadyexception",
      "model_not_ready*",
      "model_capacity_exhausted",
      "model_capacity_exceeded",
      "queue_exceeded",
      "nocapacity",
      "no_capacity",
      "insufficient_capacity",
      "capacity_exceeded",
      "service_tier_capacity_exceeded",
      "serviceunavailableexception",
      "modeltimeoutexception",
      "resource_unavailable",
      "slow_down",
    ],
  },
  {
    name: "overloaded provider, by its message",
    verdict: "none",
    source:
      "https://github.com/pollinations/pollinations/issues/6260 (Azure, 429); https://docs.z.ai/api-reference/api-code (1305, 1312); Mistral's 429 3505",
    phrases: [
      "overloaded",
      "experiencing high demand",
      "experiencing high traffic",
      "experiencing heavy load",
      "under heavy load",
      "high load",
      "no capacity available",
      "at capacity",
      "at maximum capacity",
      "over capacity",
      "capacity exceeded for this model",
      "not your usage limit",
      "server is busy",
      "servers are busy",
      "server busy",
      "model is busy",
      "model busy",
      "model too busy",
      "engine is busy",
      "model is not ready",
      "访问量过大",
      "负载过高",
      "服务繁忙",
    ],
  },

  {
    name: "server error, by its message",
    verdict: "none",
    source: "https://github.com/langchain-ai/langchain/issues/5820: OpenAI's, as a RateLimitError",
    phrases: ["the server had an error while processing", "the server experienced an error while processing"],
  },

  // Rates that are reported with the name or the sentence of an empty account.
  {
    name: "Alibaba allocated quota",
    verdict: "rate_limit",
    source:
      "https://www.alibabacloud.com/help/en/model-studio/error-code: insufficient_quota, Allocated quota exceeded, of tokens a minute",
    phrases: ["allocated quota exceeded", "error-code#token-limit"],
  },
  {
    name: "throttling",
    verdict: "rate_limit",
    source:
      "Amazon Bedrock, InvokeModel, Errors: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html; Alibaba's Throttling.RateQuota",
    names: ["throttlingexception", "throttling", "throttling.*", "servicequotaexceededexception"],
  },
  {
    name: "rate limit with HTTP 402",
    verdict: "rate_limit",
    source: "https://github.com/openclaw/openclaw/issues/30484 (Claude subscriptions)",
    statuses: [402],
    names: ["rate_limit_error", "rate_limit_exceeded"],
  },
  {
    name: "rate limit with HTTP 402, by its message",
    verdict: "rate_limit",
    source: "https://github.com/openclaw/openclaw/pull/30687",
    statuses: [402],
    phrases: [
      "rate limit exceeded",
      "rate limit reached",
      "too many requests",
      "usage limit reached",
      "usage limit exceeded",
    ],
  },

  // Empty accounts.
  {
    name: "HTTP 402",
    verdict: "billing",
    source:
      "RFC 9110, 15.5.3 Payment Required; so DeepSeek (https://api-docs.deepseek.com/quick_start/error_codes), OpenRouter (https://openrouter.ai/docs/api-reference/errors) and Anthropic's billing_error",
    statuses: [402],
  },
  {
    name: "Anthropic billing_error",
    verdict: "billing",
    source: "https://docs.anthropic.com/en/api/errors",
    names: ["billing_error"],
  },
  {
    name: "insufficient quota, balance or credits",
    verdict: "billing",
    source:
      "OpenAI: https://platform.openai.com/docs/guides/error-codes; MiniMax: https://github.com/modelscope/modelscope/issues/1691; Gemini's INSUFFICIENT_*_CREDITS; One API's insufficient_user_quota",
    names: [
      "insufficient_quota",
      "insufficient_*quota*",
      "insufficient*balance*",
      "insufficient*credit*",
      "insufficient*fund*",
      "*balance_not_enough",
      "not_enough_balance",
      "not_enough_credits",
      "reject_no_credit",
      "credits_exhausted",
      "credits_depleted",
      "creditserror",
      "out_of_credits",
    ],
  },
  {
    name: "spending limit",
    verdict: "billing",
    source:
      "https://platform.openai.com/docs/guides/error-codes; LiteLLM's budget_exceeded: https://docs.litellm.ai/docs/proxy/users",
    names: ["billing_hard_limit_reached", "billing_not_active", "*spend_limit*", "*spending_limit*", "budget_exceeded"],
  },
  {
    name: "Moonshot exceeded_current_quota_error",
    verdict: "billing",
    source: "https://platform.moonshot.ai/docs/api/chat",
    names: ["exceeded_current_quota_error"],
  },
  {
    name: "Google BILLING_DISABLED",
    verdict: "billing",
    source:
      "google.api.ErrorReason: https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto",
    names: ["billing_disabled", "consumer_suspended"],
  },
  {
    name: "overdue account",
    verdict: "billing",
    source:
      "Volcengine: https://www.volcengine.com/docs/82379/1299023 (AccountOverdueError); Alibaba: https://www.alibabacloud.com/help/en/model-studio/error-code (Arrearage, AllocationQuota.FreeTierOnly)",
    names: ["accountoverdue*", "arrearage", "allocationquota.freetieronly"],
  },
  {
    name: "z.ai 1113 or 1309",
    verdict: "billing",
    source: "https://docs.z.ai/api-reference/api-code: an empty account, an expired plan",
    statuses: [429],
    names: ["code=1113", "code=1309"],
  },
  {
    name: "MiniMax 1008",
    verdict: "billing",
    source: "https://platform.minimax.io/docs/api-reference/errorcode: insufficient balance, in base_resp",
    names: ["status_code=1008"],
  },
  {
    name: "ElevenLabs quota_exceeded",
    verdict: "billing",
    source: "https://github.com/home-assistant/core/issues/160414: 401, out of the credits of the month",
    names: ["status=quota_exceeded"],
    phrases: ["credits remaining", "characters remaining"],
  },
  {
    name: "empty account, by its message",
    verdict: "billing",
    source:
      "https://docs.anthropic.com/en/api/errors (400, credit balance); https://github.com/anthropics/claude-code/issues/38035 and /45264 (400, usage limits and extra usage); https://github.com/warpdotdev/warp/issues/14867 (xAI, 403); https://github.com/dyad-sh/dyad/issues/3626 (Gemini, 429); https://github.com/7836246/cursor2api/issues/30 (z.ai, 429); https://github.com/MiniMax-AI/MiniMax-M2/issues/62 (500); https://github.com/continuedev/continue/issues/13195 (Ollama, 403)",
    phrases: [
      "balance*too low",
      "balance*insufficient",
      "balance*exhausted",
      "balance*not enough",
      "insufficient*balance",
      "insufficient*credit",
      "insufficient*fund",
      "insufficient*quota",
      "not enough*credit",
      "not enough*balance",
      "not enough*fund",
      "quota is not enough",
      "out of credit",
      "out of extra usage",
      "draw from*extra usage",
      "no credits remaining",
      "no remaining credits",
      "no credits left",
      "0 credits remaining",
      "credits*depleted",
      "credits*exhausted",
      "credits*used up",
      "credit limit exceeded",
      "depleted your",
      "used all*credits",
      "used up*credits",
      "exhausted*credits",
      "exceeded*included credits",
      "low balance",
      "negative balance",
      "zero balance",
      "out of funds",
      "add funds",
      "top up your",
      "have any credits",
      "have enough credit",
      "have enough balance",
      "have enough fund",
      "have sufficient*balance",
      "have sufficient*credit",
      "have sufficient*fund",
      "purchase more credits",
      "buy more credits",
      "add more credits",
      "prompt tokens limit exceeded",
      "requires more credits",
      "more credits are required",
      "specified*usage limits",
      "spending limit",
      "spending cap",
      "spend limit",
      "spend cap",
      "key limit exceeded",
      "budget has been exceeded",
      "exceeded budget",
      "over budget",
      "budget exceeded",
      "budget limit",
      "billing limit",
      "billing hard limit",
      "payment required",
      "payment is past due",
      "unpaid invoice",
      "no payment method",
      "valid payment method",
      "subscription has expired",
      "trial has expired",
      "invalid_payment_instrument",
      "failure to pay",
      "overdue balance",
      "account is overdue",
      "account is in arrears",
      "account is in good standing",
      "requires billing to be enabled",
      "please recharge",
      "please top up",
      "余额不足",
      "余额已用尽",
      "额度不足",
      "欠费",
    ],
  },

  // Rates and quotas that fill up again.
  {
    name: "Google RESOURCE_EXHAUSTED",
    verdict: "rate_limit",
    source: "Gemini API, Troubleshooting: https://ai.google.dev/gemini-api/docs/troubleshooting; google.rpc.Code",
    // As a `status` only: errors of our own service have a `code` of that name.
    names: ["status=resource_exhausted"],
  },
  {
    name: "Google quota, by its message",
    verdict: "rate_limit",
    source: "https://ai.google.dev/gemini-api/docs/rate-limits, in the messages of Google's older SDK",
    phrases: [
      "quota exceeded for metric",
      "quota exceeded for quota metric",
      "ai.google.dev/gemini-api/docs/rate-limits",
      "for more information on this error, head to",
    ],
  },
  {
    name: "Google QuotaFailure",
    verdict: "rate_limit",
    source: "google.rpc.QuotaFailure and RetryInfo: https://cloud.google.com/apis/design/errors#error_details",
    names: ["@type=quotafailure", "@type=retryinfo"],
    phrases: ["quota"],
  },
  {
    name: "OpenAI quota, by its message",
    verdict: "billing",
    source:
      "https://platform.openai.com/docs/guides/error-codes: insufficient_quota, where a library kept the message alone",
    phrases: [
      "exceeded your current quota, please check your plan and billing",
      "exceeded current quota, please check your plan and billing",
      "please check your billing details",
    ],
  },
  {
    name: "rate_limit_error",
    verdict: "rate_limit",
    source:
      "Anthropic: https://docs.anthropic.com/en/api/errors, OpenAI's rate_limit_exceeded: https://platform.openai.com/docs/guides/rate-limits, both also within a stream; GitHub Copilot: https://github.com/github/copilot-cli/issues/2740; DashScope's limit_requests; LiteLLM's throttling_error: https://github.com/BerriAI/litellm/issues/39816",
    names: [
      "throttling_error",
      "throttled*",
      "rate_limit*",
      "ratelimit*",
      "*_rate_limited",
      "*rate_limit_exceeded",
      "*rate_limit_error",
      "rate limit exceeded",
      "too_many_requests*",
      "toomanyrequests*",
      "too many requests",
      "limit_requests",
      "limit_burst_rate",
      "request_limit_exceeded",
      "quotaexceeded",
      "dailylimitexceeded",
      "userratelimitexceeded",
    ],
  },
  {
    name: "usage limit of a plan",
    verdict: "rate_limit",
    source:
      "Codex: https://github.com/router-for-me/CLIProxyAPI/issues/1666; opencode: https://github.com/anomalyco/opencode/issues/32971; Cerebras: https://inference-docs.cerebras.ai/support/error; Gemini Code Assist: https://github.com/google-gemini/gemini-cli/issues/29425",
    names: [
      "usage_limit*",
      "*usagelimiterror",
      "token_quota_exceeded",
      "request_quota_exceeded",
      "quota_exhausted",
      "daily_limit_exceeded",
    ],
  },
  {
    name: "MiniMax 1002 or 2056",
    verdict: "rate_limit",
    source: "https://platform.minimax.io/docs/api-reference/errorcode, in base_resp",
    names: ["status_code=1002", "status_code=2056"],
  },
  {
    name: "HTTP 429",
    verdict: "rate_limit",
    source: "RFC 6585, 4. Too Many Requests",
    statuses: [429],
  },
  {
    name: "stated HTTP 402",
    verdict: "billing",
    source: "https://github.com/chaogei/Kiro-account-manager/issues/27: API error 402: {…}",
    weak: true,
    statedStatuses: [402],
  },
  {
    name: "usage limit of a plan, by its message",
    verdict: "rate_limit",
    source:
      "https://github.com/anthropics/claude-code/issues/9046 (Claude CLI); https://github.com/google-gemini/gemini-cli/issues/22643 (Gemini CLI); Kimi Code's 403: https://github.com/NanmiCoder/cc-haha/issues/1208; Amazon Q: https://github.com/aws/aws-toolkit-vscode/issues/8577",
    phrases: [
      "usage limit reached",
      "usage limit has been reached",
      "usage limit exceeded",
      "reached your*usage limit",
      "reached your*rate limit",
      "exceeded your*rate limit",
      "reached your*quota",
      "hit your*limit",
      "reached the limit",
      "reached for this month",
      "free usage exceeded",
      "daily free allocation",
    ],
  },

  {
    name: "rate limit, by a 403 and its message",
    verdict: "rate_limit",
    source: "https://cloud.google.com/apis/design/errors (rateLimitExceeded, quotaExceeded), and proxies",
    statuses: [403],
    phrases: ["rate limit exceeded", "rate limit reached", "too many requests", "quota exceeded"],
  },

  // The weakest evidence: messages of errors without an HTTP status of the provider.
  {
    name: "stated HTTP 429",
    verdict: "rate_limit",
    source:
      "https://github.com/router-for-me/CLIProxyAPI/issues/4761: 429 {…}; axios: Request failed with status code 429",
    weak: true,
    statedStatuses: [429],
  },
  {
    name: "rate limit, by its message",
    verdict: "rate_limit",
    source:
      "https://github.com/elizaOS/eliza/issues/4040 (Groq in the AI SDK); https://github.com/microsoft/vscode-copilot-release/issues/6479 (GitHub Copilot); https://github.com/anthropics/claude-code/issues/236 (Bedrock); https://github.com/zed-industries/zed/issues/54735 (Cursor); https://github.com/zai-org/GLM-5/issues/78 (Zhipu)",
    weak: true,
    phrases: [
      "rate limit",
      "rate-limit",
      "ratelimit",
      "too many requests",
      "too many tokens",
      "throttl",
      "quota exceeded",
      "over quota",
      "out of quota",
      "quota limit",
      "quota reached",
      "quota has been reached",
      "quota exhausted",
      "quota is exhausted",
      "quota has been exhausted",
      "exhausted your quota",
      "exceeded your quota",
      "exhausted your capacity",
      "resource has been exhausted",
      "resource exhausted",
      "requests per minute",
      "tokens per minute",
      "requests per day",
      "tokens per day",
      "requests per second",
      "requests per hour",
      "concurrency limit",
      "request limit",
      "requests limit",
      "usage limit",
      "session limit",
      "hourly limit",
      "5-hour limit",
      "daily limit",
      "weekly limit",
      "monthly limit",
      "[resource_exhausted] error",
      "速率限制",
      "请求频率",
      "请求过于频繁",
      "使用上限",
    ],
  },
];
