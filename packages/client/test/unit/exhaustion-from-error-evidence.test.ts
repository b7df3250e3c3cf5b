import { describe, expect, it } from "vitest";
import { exhaustionFromError } from "../../src/provider/exhaustion-from-error.ts";

const NOW = Date.UTC(2026, 8, 6, 0, 0, 0);
const seconds = (ms: number) => Math.floor(ms / 1_000);
const limited = (headers: Record<string, string>, message = "", body: object = {}) => ({
  status: 429,
  headers,
  body: { error: { ...body, message } },
});
const waitOf = (error: unknown) => exhaustionFromError(error, NOW)?.retryAfterMs;
const reasonOf = (error: unknown) => exhaustionFromError(error, NOW)?.reason;

describe("exhaustionFromError ranks its evidence", () => {
  const field = { resets_in_seconds: 10 };
  const header = { "retry-after": "20" };
  const usedUp = { "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s" };
  const open = { "x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "50s" };
  it.each<[string, unknown, number, string]>([
    [
      "a field before a header",
      limited({ ...header, ...usedUp }, "try again in 40s", field),
      10_000,
      "resets_in_seconds",
    ],
    [
      "a header for this request before a budget",
      limited({ ...header, ...usedUp }, "try again in 40s"),
      20_000,
      "retry-after",
    ],
    ["a budget that is used up before the message", limited(usedUp, "try again in 40s"), 30_000, "x-ratelimit-reset-*"],
    ["the message before a budget that is not used up", limited(open, "try again in 40s"), 40_000, "message"],
    ["a budget that is not used up if nothing else tells a wait", limited(open), 50_000, "x-ratelimit-reset-*"],
    [
      "the next evidence if the first tells no time ahead",
      limited({ "retry-after": "0" }, "try again in 40s"),
      40_000,
      "message",
    ],
  ])("%s", (_, error, retryAfterMs, evidence) => {
    expect(exhaustionFromError(error, NOW)).toMatchObject({ retryAfterMs, evidence: `HTTP 429, ${evidence}` });
  });
});

describe("exhaustionFromError reads the dates of HTTP in UTC", () => {
  it.each([
    ["IMF-fixdate", "Sun, 06 Sep 2026 01:00:00 GMT"],
    ["RFC 850", "Sunday, 06-Sep-26 01:00:00 GMT"],
    ["asctime", "Sun Sep  6 01:00:00 2026"],
    ["RFC 3339", "2026-09-06T01:00:00Z"],
    ["RFC 3339 with an offset", "2026-09-06T03:00:00+02:00"],
    ["RFC 3339 without a zone", "2026-09-06T01:00:00"],
  ])("%s", (_, date) => {
    expect(waitOf(limited({ "retry-after": date }))).toBe(3_600_000);
    const later = { "retry-after": date, date: "Sunday, 06-Sep-26 00:59:00 GMT" };
    expect(waitOf(limited(later)), "by the provider's clock").toBe(60_000);
  });

  it.each([
    "Sun, 31 Feb 2026 01:00:00 GMT",
    "Sun Sep  6 25:00:00 2026",
    "Sun, 06 Foo 2026 01:00:00 GMT",
  ])("but not %s", (date) => {
    expect(waitOf(limited({ "retry-after": date }))).toBeUndefined();
  });
});

describe("exhaustionFromError reads waits in fields and headers", () => {
  it.each<[string, object, Record<string, string>, number]>([
    ["seconds since 1970", { resets_at: seconds(NOW) + 60 }, {}, 60_000],
    ["milliseconds since 1970", { resetsAt: NOW + 60_000 }, {}, 60_000],
    ["a date", { quotaResetTimeStamp: "2026-09-06T00:01:00Z" }, {}, 60_000],
    ["milliseconds", { retryAfterMs: 1_500 }, {}, 1_500],
    ["a duration", { quotaResetDelay: "1m30.5s" }, {}, 90_500],
    ["a Duration of gRPC's libraries", { details: [{ retryDelay: { seconds: "7", nanos: 250_000_000 } }] }, {}, 7_250],
    ["a wait beside other values", { metadata: { "retry-after": 5 } }, {}, 5_000],
    ["headers in a field of the body", { metadata: { headers: { "Retry-After": "6" } } }, {}, 6_000],
    ["headers that LiteLLM repeats", {}, { "llm_provider-retry-after": "8" }, 8_000],
    [
      "plain seconds of a budget",
      {},
      { "x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "30.2" },
      30_200,
    ],
  ])("%s", (_, body, headers, ms) => {
    expect(waitOf(limited(headers, "", body))).toBe(ms);
  });

  const codex = (primary: string, secondary: string) => ({
    "x-codex-primary-used-percent": primary,
    "x-codex-primary-reset-after-seconds": "100",
    "x-codex-secondary-used-percent": secondary,
    "x-codex-secondary-reset-after-seconds": "0",
    "x-codex-secondary-reset-at": String(seconds(NOW) + 900),
  });
  it.each([
    ["of the first window", codex("100", "50"), 100_000],
    ["of the second window, by its moment", codex("30", "100"), 900_000],
    ["of the longer one if both are used up", codex("100", "100"), 900_000],
    ["of none if none is used up", codex("30", "50"), undefined],
  ])("Codex's headers, %s", (_, headers, ms) => {
    expect(waitOf(limited(headers))).toBe(ms);
  });

  const unified = "anthropic-ratelimit-unified";
  const resets = {
    [`${unified}-5h-reset`]: String(seconds(NOW) + 100),
    [`${unified}-7d-reset`]: String(seconds(NOW) + 900),
  };
  const states = (first: string, second: string) => ({
    [`${unified}-5h-status`]: first,
    [`${unified}-7d-status`]: second,
  });
  it.each([
    ["of the rejecting window", { ...resets, ...states("rejected", "allowed") }, 100_000],
    ["of the longer one if both reject", { ...resets, ...states("rejected", "rejected") }, 900_000],
    ["of the representative claim", { ...resets, [`${unified}-representative-claim`]: "five_hour" }, 100_000],
    ["of none if both allow: another limit refused", { ...resets, ...states("allowed", "allowed_warning") }, undefined],
    [
      "of the whole if the rejecting window has none",
      {
        ...states("allowed", "rejected"),
        [`${unified}-status`]: "rejected",
        [`${unified}-reset`]: String(seconds(NOW) + 300),
      },
      300_000,
    ],
  ])("Anthropic's unified headers, %s", (_, headers, ms) => {
    expect(waitOf(limited(headers))).toBe(ms);
  });
});

describe("exhaustionFromError reads waits in messages", () => {
  it.each<[string, number]>([
    ["Please try again in 7m12s. Visit the site.", 432_000],
    ["Please try again in 2m59.56s.", 179_560],
    ["Please try again in 58 hours.", 208_800_000],
    ["Please wait 3 hours and 43 minutes for your limit to reset.", 13_380_000],
    ["or try again in 2 days 17 hours 14 minutes.", 234_840_000],
    ["Your rate limit resets in ~9s.", 9_000],
    ["please try again in about an hour", 3_600_000],
    ["Retry-After: 7 seconds", 7_000],
    ["Retry-After: 7", 7_000],
    ["retry-after-ms=997000", 997_000],
    ["retry_delay {\n  seconds: 41\n}", 41_000],
    ["将在 30 秒后重试", 30_000],
    ["您的限额将在 2026-09-06T01:00:00Z 重置", 3_600_000],
    ["resets at 2026-09-06T01:00:00Z (2056)", 3_600_000],
    ["Limit resets at: 2026-09-06 01:00:00 UTC", 3_600_000],
    ["It will reset at 2026-09-06 09:00:00 +0800 CST", 3_600_000],
    ["You will regain access on 2026-09-06 at 01:00 UTC.", 3_600_000],
    ["Claude AI usage limit reached|1788660000", 1_788_660_000_000 - NOW],
    ["Resets at 10:00 UTC.", 36_000_000],
    ["You've hit your limit · resets 2am (Europe/Berlin)", 24 * 3_600_000],
    ["You've hit your limit · resets 8pm (America/New_York)", 24 * 3_600_000],
    ["You've hit your weekly limit · resets Sep 8, 2am (Europe/Berlin)", 48 * 3_600_000],
    ["Access resets at 10:57 PM GMT-3.", 7_020_000],
    ["Your limit will reset at 2am\n     (Europe/Berlin).", 24 * 3_600_000],
  ])("%s", (message, ms) => {
    expect(waitOf(limited({}, message))).toBe(ms);
  });

  it("in Beijing time if z.ai names no zone", () => {
    const message = "Usage limit reached for 5 hour. Your limit will reset at 2026-09-06 09:00:00";
    expect(waitOf(limited({}, message, { code: "1308" }))).toBe(3_600_000);
  });

  it.each([
    "Please wait a moment.",
    "Please wait a few minutes before you try again.",
    "Your limit will reset at 2026-09-06 09:00:00",
    "resets 9am",
    "try again at 3:04 PM.",
    "resets 9am (Europe/Atlantis)",
    "resets Foo 3, 9am (Europe/Berlin)",
    "resets at 27:00 UTC",
    "Current limit: 30 s",
  ])("but no time from: %s", (message) => {
    expect(exhaustionFromError(limited({}, message), NOW)).toMatchObject({
      reason: "rate_limit",
      retryAfterMs: undefined,
    });
  });
});

describe("exhaustionFromError reads JSON in texts", () => {
  const error = { error: { type: "usage_limit_reached", resets_in_seconds: 60 } };
  const nested = (depth: number) => {
    let text = JSON.stringify(error);
    for (let level = 0; level < depth; level += 1) text = JSON.stringify({ error: { message: text } });
    return text;
  };
  it.each<[string, unknown]>([
    ["as a whole", JSON.stringify(error)],
    ["after words", `API Error: 429 ${JSON.stringify(error)}`],
    ["between words", `429 ${JSON.stringify(error)} at the third attempt`],
    ["in JSON in JSON in JSON", nested(4)],
    ["in a list in words", `[API Error: [${JSON.stringify(error)}]]`],
    ["as a text in JSON", JSON.stringify(JSON.stringify(error))],
    ["in escapes", `status 429 - "${JSON.stringify(error).replaceAll('"', '\\"')}"`],
    [
      "as Python prints it",
      "Error code: 429 - {'error': {'type': 'usage_limit_reached', 'param': None, 'resets_in_seconds': 60}}",
    ],
    ["as Node.js prints it", "failed: { status: 429, body: { type: 'usage_limit_reached', resets_in_seconds: 60 } }"],
    ["as Rust prints it", 'Error { code: "usage_limit_reached", resets_in_seconds: 60 }'],
    ["as Python prints bytes", `Exception - b'${JSON.stringify(error)}'`],
    ["cut off", `429 ${JSON.stringify(error).slice(0, -2)}`],
    [
      "in the cause of a cause",
      new Error("run", { cause: new Error("call", { cause: new Error(`429 ${nested(1)}`) }) }),
    ],
  ])("%s", (_, thrown) => {
    expect(exhaustionFromError(thrown, NOW)).toMatchObject({ reason: "rate_limit", retryAfterMs: 60_000 });
  });
});

describe("exhaustionFromError ignores texts of the user", () => {
  const balance = "Your credit balance is too low to access the API";
  const quota = JSON.stringify({ error: { type: "insufficient_quota" } });
  it.each<[string, string]>([
    ["in single quotes", `Invalid 'input[3].content': string too long. Got 'Anthropic says: ${balance}' instead.`],
    ["in double quotes", `messages.0: "${balance}" is not allowed`],
    ["in typographic quotes", `The text “${balance}” is not allowed`],
    ["in quotes that are cut off", `Invalid content. Got 'Anthropic says: ${balance}`],
    ["with an apostrophe in its quotes", `Invalid content. Got 'You're told: ${balance}' instead.`],
    ["as JSON in quotes", `Invalid 'messages[1].content': '${quota}' is too long`],
    ["as JSON after its name", `validation failed [type=string_type, input_value=${quota}, input_type=dict]`],
  ])("%s", (_, message) => {
    expect(
      exhaustionFromError({ status: 400, body: { error: { message, type: "invalid_request_error" } } }),
    ).toBeUndefined();
  });

  it("in the request that an error carries", () => {
    const request = { messages: [{ role: "user", content: quota, type: "insufficient_quota" }] };
    const error = Object.assign(new Error("Bad Request"), {
      status: 400,
      request,
      config: { data: quota },
      requestBodyValues: request,
      body: {
        detail: [{ type: "string_type", msg: "Input should be a string", input: { type: "insufficient_quota" } }],
      },
    });
    expect(exhaustionFromError(error)).toBeUndefined();
  });

  it("if its message has the words of an empty account and its code says that the request is invalid", () => {
    const error = { message: `Invalid value: ${balance}`, code: "invalid_value" };
    expect(exhaustionFromError({ status: 400, body: { error } })).toBeUndefined();
  });
});

describe("exhaustionFromError weighs statuses", () => {
  it("a sentence alone is evidence without a status, or with one of a proxy", () => {
    const message = "Rate limit reached. Please try again in 3s.";
    expect(waitOf(new Error(message))).toBe(3_000);
    expect(waitOf({ status: 502, body: { error: { message } } })).toBe(3_000);
    expect(reasonOf({ status: 401, body: { error: { message } } })).toBeUndefined();
    expect(reasonOf({ status: 503, body: { error: { message } } })).toBeUndefined();
  });

  it("a status in a message is evidence if no field has one", () => {
    expect(reasonOf(new Error("Request failed with status code 429"))).toBe("rate_limit");
    expect(reasonOf(new Error("API error 402: see the site"))).toBe("billing");
    expect(reasonOf(new Error("read 429 files"))).toBeUndefined();
    expect(reasonOf({ status: 400, message: "status code 429" })).toBeUndefined();
  });

  it("the last error of the AI SDK counts, not those of earlier attempts", () => {
    const lastError = { statusCode: 529, data: { error: { type: "overloaded_error" } } };
    expect(reasonOf({ lastError, errors: [{ statusCode: 429 }, lastError] })).toBeUndefined();
    expect(reasonOf({ lastError: { statusCode: 429 }, errors: [lastError, { statusCode: 429 }] })).toBe("rate_limit");
  });

  it.each([
    [
      "ModelNotReadyException of Bedrock",
      { status: 429, headers: { "x-amzn-errortype": "ModelNotReadyException:http://x/" } },
    ],
    [
      "Gemini's insufficient credits",
      { status: 429, body: { details: [{ reason: "INSUFFICIENT_G1_CREDITS_BALANCE" }] } },
      "billing",
    ],
    [
      "boto3's response",
      { Error: { Code: "ThrottlingException" }, ResponseMetadata: { HTTPStatusCode: 400 } },
      "rate_limit",
    ],
    ["MiniMax's base_resp in a success", { status: 200, body: { base_resp: { status_code: 1008 } } }, "billing"],
    ["an event of the Claude CLI", { type: "rate_limit_event", rate_limit_info: { status: "rejected" } }, "rate_limit"],
  ])("%s", (_, error, reason = undefined) => {
    expect(reasonOf(error)).toBe(reason);
  });
});

describe("exhaustionFromError bounds the work", () => {
  const long = (text: string) => text.repeat(Math.ceil(1_000_000 / text.length));
  // Each of these took seconds or more with a scanner that starts anew at every character.
  it.each([
    "{",
    "[",
    "[[1,",
    '{"a":',
    "'",
    " '",
    '\\"',
    '{\\"',
    "b'{",
    "{a:",
    "{a:1,",
    "{a:1 {",
    "try again in ",
    "1h",
    "retry after 1",
    "(429) ",
    "oct 9, 5pm (",
    "balance",
  ])("of a megabyte of %s", (text) => {
    expect(exhaustionFromError({ status: 429, body: long(text) }, NOW)?.reason).toBeDefined();
    expect(() => exhaustionFromError(new Error(long(text)), NOW)).not.toThrow();
  });

  it("of many long texts, wide and deep errors", () => {
    const errors = Array.from({ length: 500 }, (_, index) => new Error(`${long('{"error":"')}${index}`));
    expect(exhaustionFromError({ status: 429, errors }, NOW)).toMatchObject({ reason: "rate_limit" });
    let deep: unknown = { status: 429 };
    for (let level = 0; level < 10_000; level += 1) deep = { cause: deep };
    expect(exhaustionFromError(deep, NOW)).toBeUndefined();
  });

  it("and takes values of every type", () => {
    const odd = [Symbol("x"), 1n, () => 1, Number.NaN, new Map([["retry-after", "5"]]), new Date(Number.NaN), [["a"]]];
    const throwing = {
      [Symbol.toPrimitive]: () => {
        throw new Error("no");
      },
    };
    for (const value of [...odd, throwing]) {
      const error = {
        status: 429,
        code: value,
        message: value,
        headers: value,
        retryDelay: { seconds: value },
        cause: value,
      };
      expect(exhaustionFromError(error, NOW)?.reason).toBe("rate_limit");
      expect(() => exhaustionFromError(value, NOW)).not.toThrow();
    }
  });
});
