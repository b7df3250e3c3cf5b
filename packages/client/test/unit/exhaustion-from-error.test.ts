import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { callErrorOf } from "../../src/connection/call-error.ts";
import { ERROR_KINDS } from "../../src/provider/error-kinds.ts";
import { exhaustionFromError } from "../../src/provider/exhaustion-from-error.ts";
import { BUDGETS, WAIT_FIELDS, WAIT_HEADERS } from "../../src/provider/wait-sources.ts";

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);
const DAY_MS = 24 * 3_600_000;
const inMs = (ms: number) => new Date(NOW + ms).toISOString();

/** As fetch responds. */
const response = (status: number, headers: Record<string, string> = {}) => ({ status, headers: new Headers(headers) });

/** As the SDKs of OpenAI and Anthropic throw. */
function sdkError(status: number | undefined, body: object, headers: Record<string, string> = {}): Error {
  return Object.assign(new Error("the SDK's words"), { status, error: body, headers: new Headers(headers) });
}

/** As axios throws. */
function axiosError(status: number, data: unknown, headers: Record<string, string> = {}): Error {
  const error = new Error(`Request failed with status code ${status}`);
  return Object.assign(error, { code: "ERR_BAD_REQUEST", response: { status, data, headers } });
}

const openai = (code: string, type = code) => ({ message: "…", type, param: null, code });
const anthropic = (type: string, message = "…") => ({ type: "error", error: { type, message } });
const google = (...details: object[]) => ({
  error: { code: 429, message: "Quota exceeded", status: "RESOURCE_EXHAUSTED", details },
});
const retryInfo = (retryDelay: unknown) => ({ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay });

describe("exhaustionFromError recognizes a rate limit", () => {
  it.each<[string, unknown, number | undefined]>([
    ["by its status alone", response(429), undefined],
    ["with Retry-After in seconds", response(429, { "Retry-After": "17" }), 17_000],
    ["with Retry-After as a date", response(429, { "Retry-After": "Sun, 22 Nov 2026 12:01:30 GMT" }), 90_000],
    [
      "with Retry-After as a date of a provider whose clock is an hour ahead",
      response(429, { "Retry-After": "Sun, 22 Nov 2026 13:01:30 GMT", Date: "Sun, 22 Nov 2026 13:00:00 GMT" }),
      90_000,
    ],
    ["with retry-after-ms, which is finer", response(429, { "retry-after-ms": "1250", "retry-after": "2" }), 1_250],
    [
      "with OpenAI's durations, of what is used up",
      response(429, {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "4000",
        "x-ratelimit-reset-tokens": "6m0s",
      }),
      1_000,
    ],
    ["with a duration of minutes", response(429, { "x-ratelimit-reset-tokens": "6m0s" }), 360_000],
    ["with a duration of milliseconds", response(429, { "x-ratelimit-reset-requests": "12ms" }), 12],
    ["with a duration of everything", response(429, { "x-ratelimit-reset-requests": "1h2m3.5s" }), 3_723_500],
    [
      "with Anthropic's moments, of what is used up",
      sdkError(429, anthropic("rate_limit_error"), {
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": inMs(1_000),
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": inMs(42_000),
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": inMs(41_000),
      }),
      42_000,
    ],
    [
      "with Anthropic's moment of a subscription",
      response(429, { "anthropic-ratelimit-unified-reset": String((NOW + 3_600_000) / 1_000) }),
      3_600_000,
    ],
    ["within a stream of Anthropic's", sdkError(undefined, anthropic("rate_limit_error")), undefined],
    ["of OpenAI's", sdkError(429, openai("rate_limit_exceeded", "tokens"), { "retry-after": "3" }), 3_000],
    ["of Google's with RetryInfo", axiosError(429, google({ "@type": "x.QuotaFailure" }, retryInfo("34.5s"))), 34_500],
    [
      "of Google's SDK, which has the answer in its message",
      Object.assign(new Error(`got status: 429 Too Many Requests. ${JSON.stringify(google(retryInfo("8s")))}`), {}),
      8_000,
    ],
    ["of Google's older SDK", Object.assign(new Error("429"), { status: 429, errorDetails: [retryInfo("5s")] }), 5_000],
    [
      "of the AI SDK",
      Object.assign(new Error("Failed after 3 attempts."), {
        lastError: { statusCode: 429, responseHeaders: { "retry-after": "9" }, responseBody: "{}" },
      }),
      9_000,
    ],
    [
      "of AWS's SDK",
      Object.assign(new Error("Too many tokens"), {
        name: "ThrottlingException",
        $metadata: { httpStatusCode: 429 },
      }),
      undefined,
    ],
    ["with axios's own kind of headers", axiosError(429, "", { "Retry-After": "4" }), 4_000],
    ["as a cause", new Error("the agent failed", { cause: new Error("so", { cause: response(429) }) }), undefined],
    ["of OpenRouter's, in milliseconds since 1970", response(429, { "X-RateLimit-Reset": String(NOW + 5_000) }), 5_000],
    ["of GitHub's, in seconds since 1970", response(429, { "x-ratelimit-reset": String(NOW / 1_000 + 6) }), 6_000],
    ["with seconds to wait", response(429, { "ratelimit-reset": "7" }), 7_000],
    ["with headers as Node lists them", { status: 429, headers: { "retry-after": ["11"] } }, 11_000],
  ])("%s", (_, error, retryAfterMs) => {
    expect(exhaustionFromError(error, NOW)).toMatchObject({ reason: "rate_limit", retryAfterMs });
  });
});

describe("exhaustionFromError recognizes an empty account", () => {
  it.each<[string, unknown]>([
    ["by its status", response(402)],
    [
      "of Anthropic's, told as a bad request",
      sdkError(400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")),
    ],
    ["of Anthropic's, as a sentence alone", "400 Your credit balance is too low to access the Anthropic API."],
    ["of Anthropic's, by its type", sdkError(402, anthropic("billing_error"))],
    [
      "of OpenAI's, told as a rate limit",
      sdkError(429, openai("insufficient_quota"), { "x-ratelimit-reset-requests": "1s" }),
    ],
    ["of OpenAI's, in axios", axiosError(429, { error: openai("insufficient_quota") })],
    [
      "of OpenAI's, in the body that was read of a Response",
      { ...response(429), body: { error: openai("insufficient_quota") } },
    ],
    ["of OpenAI's, at a limit of its owner's", sdkError(400, openai("billing_hard_limit_reached"))],
    ["of Moonshot's", axiosError(429, { error: { type: "exceeded_current_quota_error", message: "…" } })],
    [
      "of Google's",
      axiosError(403, {
        error: {
          code: 403,
          status: "PERMISSION_DENIED",
          details: [{ "@type": "x.ErrorInfo", reason: "BILLING_DISABLED" }],
        },
      }),
    ],
  ])("%s", (_, error) => {
    expect(exhaustionFromError(error, NOW)).toMatchObject({ reason: "billing", retryAfterMs: undefined });
  });

  it("and not if Google says quota and means a rate", () => {
    const message = "You exceeded your current quota, please check your plan and billing details.";
    const error = axiosError(429, { error: { code: 429, status: "RESOURCE_EXHAUSTED", message } });
    expect(exhaustionFromError(error)).toMatchObject({ reason: "rate_limit" });
  });
});

describe("exhaustionFromError returns nothing for", () => {
  it.each<[string, unknown]>([
    ["nothing", undefined],
    ["null", null],
    ["a number", 429],
    ["a sentence", "fetch failed"],
    ["an error of the network", Object.assign(new TypeError("fetch failed"), { cause: { code: "ECONNRESET" } })],
    ["a bad request", sdkError(400, anthropic("invalid_request_error", "max_tokens: too large"))],
    ["a wrong key", sdkError(401, openai("invalid_api_key"))],
    ["a provider that is overloaded", sdkError(529, anthropic("overloaded_error"), { "retry-after": "5" })],
    ["a provider that is down", response(503, { "retry-after": "5" })],
    ["success", response(200, { "x-ratelimit-reset-requests": "1s" })],
    ["a refusal of our own service", callErrorOf(new ConnectError("too many", Code.ResourceExhausted))],
  ])("%s", (_, error) => {
    expect(exhaustionFromError(error, NOW)).toBeUndefined();
  });
});

describe("exhaustionFromError limits its input", () => {
  it.each<[string, Record<string, string>]>([
    ["negative", { "retry-after": "-5" }],
    ["zero", { "retry-after": "0" }],
    ["past", { "retry-after": "Sun, 22 Nov 2026 11:00:00 GMT" }],
    ["beyond any provider's word", { "retry-after": "99999999999" }],
    ["infinite", { "retry-after": "1e999" }],
    ["no number", { "retry-after": "soon" }],
    ["endless", { "retry-after": "9".repeat(10_000) }],
    ["a moment in the year 9999", { "anthropic-ratelimit-requests-reset": "9999-12-31T23:59:59Z" }],
    ["a moment that does not exist", { "anthropic-ratelimit-requests-reset": "2026-13-45T99:99:99Z" }],
    ["a duration that is none", { "x-ratelimit-reset-requests": "6m0s; drop table" }],
  ])("a deadline that is %s leaves the choice to the service", (_, headers) => {
    expect(exhaustionFromError(response(429, headers), NOW)).toMatchObject({ retryAfterMs: undefined });
  });

  it("limits a deadline to 366 days ahead, in whole milliseconds", () => {
    expect(exhaustionFromError(response(429, { "retry-after": String(366 * 86_400) }))?.retryAfterMs).toBe(
      366 * DAY_MS,
    );
    expect(exhaustionFromError(response(429, { "retry-after-ms": "0.2" }))?.retryAfterMs).toBe(1);
  });

  it("accepts cycles, getters that throw, proxies and huge values", () => {
    const circle = { status: 429, cause: {} };
    circle.cause = circle;
    expect(exhaustionFromError(circle)).toMatchObject({ reason: "rate_limit" });
    const thrower = Object.defineProperty({ status: 429 }, "headers", {
      get() {
        throw new Error("no");
      },
    });
    expect(exhaustionFromError(thrower)).toMatchObject({ reason: "rate_limit" });
    const hostile = new Proxy(
      {},
      {
        get() {
          throw new Error("no");
        },
        ownKeys() {
          throw new Error("no");
        },
      },
    );
    expect(exhaustionFromError({ status: 429, headers: hostile, cause: hostile })).toMatchObject({
      reason: "rate_limit",
    });
    const giant = { status: 429, body: `{"error": ${"[".repeat(1_000_000)}`, details: Array(100_000).fill({}) };
    expect(exhaustionFromError(giant)).toMatchObject({ reason: "rate_limit" });
    expect(exhaustionFromError({ status: 429, headers: { get: () => ({ evil: true }) } })).toMatchObject({
      retryAfterMs: undefined,
    });
  });

  it("accepts revoked proxies, proxies that trap everything, and lists whose items throw", () => {
    const trap = () => {
      throw new Error("no");
    };
    const revoked = <T extends object>(target: T): T => {
      const { proxy, revoke } = Proxy.revocable(target, {});
      revoke();
      return proxy;
    };
    const item = Object.defineProperty([1, 2], 0, { get: trap });
    const all = [
      new Proxy({}, { get: trap, has: trap, ownKeys: trap, getPrototypeOf: trap, getOwnPropertyDescriptor: trap }),
      new Proxy(new Headers(), {}),
      revoked({}),
      revoked([]),
      revoked(new Headers()),
      item,
    ];
    for (const hostile of all) {
      expect(exhaustionFromError(hostile)).toBeUndefined();
      const error = { status: 429, headers: hostile, body: hostile, cause: hostile };
      expect(exhaustionFromError(error)).toMatchObject({ reason: "rate_limit", retryAfterMs: undefined });
      const header = { status: 429, headers: { "retry-after": hostile } };
      expect(exhaustionFromError(header)).toMatchObject({ reason: "rate_limit", retryAfterMs: undefined });
    }
  });
});

it("every row of the tables names its source", () => {
  for (const { name, source } of [...ERROR_KINDS, ...WAIT_FIELDS, ...WAIT_HEADERS, ...BUDGETS]) {
    expect(source, name).toMatch(/https:\/\/|RFC \d{4}|draft-ietf/);
  }
});
