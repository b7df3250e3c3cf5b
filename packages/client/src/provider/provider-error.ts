/** The error of a call to a model provider, independent of the library. */
export interface ProviderFailure {
  /** HTTP statuses of the response and of the errors around it. Errors within a stream have none. */
  readonly statuses: ReadonlySet<number>;
  /** Names of the error in response and library, in lower case: `rate_limit_error`, and with the field `type=rate_limit_error`. */
  readonly names: ReadonlySet<string>;
  /** All messages, in lower case. */
  readonly text: string;
  /** Google's error details, by the last part of their type: `RetryInfo`, `QuotaFailure`. */
  readonly details: readonly ErrorDetail[];
  /** A header of the response; undefined if it is missing or too long. */
  header(name: string): string | undefined;
}

export interface ErrorDetail {
  readonly type: string;
  readonly retryDelay: string | undefined;
}

/** The depth of nested errors that is read. It also ends cycles. */
const DEEPEST = 6;
const MOST_PARTS = 40;
const LONGEST_HEADER = 128;
const LONGEST_NAME = 128;
const LONGEST_TEXT = 8_192;
const LONGEST_BODY = 65_536;

/**
 * The properties with the response, from the error on: fetch (`status`, `headers`), the SDKs of
 * OpenAI and Anthropic (`error`), axios and got (`response.data`, `response.body`), Google's (`errorDetails`), the AI SDK
 * (`statusCode`, `responseHeaders`, `responseBody`, `lastError`), AWS's (`$metadata`, `$response`), and `cause` of errors
 * around them.
 */
const INNER = [
  "error",
  "response",
  "data",
  "body",
  "responseBody",
  "details",
  "errorDetails",
  "lastError",
  "cause",
  "$metadata",
  "$response",
] as const;
const STATUSES = ["status", "statusCode", "httpStatusCode", "code"] as const;
const NAMES = ["type", "code", "status", "reason", "name", "__type"] as const;
const HEADERS = ["headers", "responseHeaders"] as const;

/** Reads any thrown value. Never throws, also if a getter or proxy does. */
export function readFailure(thrown: unknown): ProviderFailure {
  const parts = partsOf(thrown);
  const names = new Set<string>();
  const sentences: string[] = [];
  const details: ErrorDetail[] = [];
  const headers: unknown[] = [];
  const statuses = new Set<number>();
  for (const part of parts) {
    if (typeof part === "string") {
      sentences.push(part.slice(0, LONGEST_TEXT));
      continue;
    }
    for (const key of STATUSES) {
      const status = read(part, key);
      if (isStatus(status)) statuses.add(status);
    }
    for (const key of NAMES) {
      const name = read(part, key);
      if (typeof name !== "string" || name.length > LONGEST_NAME) continue;
      names.add(name.toLowerCase());
      names.add(`${key}=${name.toLowerCase()}`);
    }
    const message = read(part, "message");
    if (typeof message === "string") sentences.push(message.slice(0, LONGEST_TEXT));
    const type = read(part, "@type");
    if (typeof type === "string") {
      const retryDelay = read(part, "retryDelay");
      details.push({
        type: type.slice(type.lastIndexOf(".") + 1),
        retryDelay: typeof retryDelay === "string" && retryDelay.length <= LONGEST_HEADER ? retryDelay : undefined,
      });
    }
    for (const key of HEADERS) headers.push(read(part, key));
  }
  return {
    statuses,
    names,
    text: sentences
      .join("\n")
      .slice(0, 4 * LONGEST_TEXT)
      .toLowerCase(),
    details,
    header(name) {
      for (const all of headers) {
        const value = headerOf(all, name);
        if (value !== undefined) return value;
      }
      return undefined;
    },
  };
}

/** The error and its parts, the outermost first. Strings of JSON are parsed. */
function partsOf(thrown: unknown): (object | string)[] {
  const parts: (object | string)[] = [];
  const seen = new Set<object>();
  let level: unknown[] = [thrown];
  for (let depth = 0; depth < DEEPEST && level.length > 0; depth += 1) {
    const next: unknown[] = [];
    for (const one of level) {
      const part = typeof one === "string" ? parsed(one) : one;
      if (parts.length >= MOST_PARTS || part === null || part === undefined) continue;
      if (typeof part === "string") parts.push(part);
      else if (typeof part === "object" && !seen.has(part)) {
        seen.add(part);
        parts.push(part);
        const items = itemsOf(part);
        if (items !== undefined) next.push(...items);
        else for (const key of INNER) next.push(read(part, key));
        // Google's SDK puts the whole body into the message.
        const message = read(part, "message");
        if (typeof message === "string" && message.includes("{")) next.push(parsed(message));
      }
    }
    level = next;
  }
  return parts;
}

/** The JSON in a text, after any prefix; the text itself if there is none. */
function parsed(text: string): unknown {
  const begin = text.search(/[[{]/);
  if (begin < 0 || text.length > LONGEST_BODY) return text.slice(0, LONGEST_TEXT);
  try {
    const value: unknown = JSON.parse(text.slice(begin));
    return value;
  } catch {
    return text.slice(0, LONGEST_TEXT);
  }
}

function isStatus(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 100 && value < 600;
}

function headerOf(headers: unknown, name: string): string | undefined {
  if (typeof headers !== "object" || headers === null) return undefined;
  // A proxy of Headers is no Headers to its methods.
  const value = attempt(() => (headers instanceof Headers ? headers.get(name) : plainHeader(headers, name)));
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value.length <= LONGEST_HEADER ? value.trim() : undefined;
}

/** Node returns repeated headers as lists. Others keep the case of names, or have a `get` of their own. */
function plainHeader(headers: object, name: string): unknown {
  let value = read(headers, name);
  if (value === undefined) {
    const key = keysOf(headers).find((one) => one.toLowerCase() === name);
    if (key !== undefined) value = read(headers, key);
  }
  if (value === undefined) {
    const get = read(headers, "get");
    if (typeof get === "function") value = attempt(() => Reflect.apply(get, headers, [name]));
  }
  return Array.isArray(value) ? value[0] : value;
}

/** The first items of a list; undefined for other values. */
function itemsOf(value: object): unknown[] | undefined {
  return attempt(() => (Array.isArray(value) ? value.slice(0, MOST_PARTS) : undefined));
}

function keysOf(value: object): string[] {
  return attempt(() => Object.keys(value)) ?? [];
}

function read(value: object, key: string): unknown {
  return attempt((): unknown => Reflect.get(value, key));
}

function attempt<T>(task: () => T): T | undefined {
  try {
    return task();
  } catch {
    return undefined;
  }
}
