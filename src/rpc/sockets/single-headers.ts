import { Refusal } from "../../domain/errors.ts";

/**
 * Request headers that the server reads and that have one value. If there are two, Node takes the first one or joins them, and a
 * proxy may take the other one. `authorization-header.ts` handles two `authorization` headers. Lists, such as `accept-encoding`,
 * and headers that the server does not read may repeat.
 */
const SINGLE: ReadonlyMap<string, string> = new Map(
  [
    "Host",
    "Origin",
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Connect-Protocol-Version",
    "Connect-Timeout-Ms",
    "Connect-Content-Encoding",
    "Grpc-Encoding",
    "Grpc-Timeout",
  ].map((name) => [name.toLowerCase(), name]),
);

/** Host and port (RFC 9110, section 7.2), either of which may be empty. An IPv6 address may have a zone. */
const HOST_AND_PORT = /^(?:\[[\da-f:.]+(?:%[^\]\s]+)?\]|[^:[\]@/\\?#,\s]*)(?::\d{0,5})?$/i;

/**
 * Finds what makes the headers of a request ambiguous:
 * - two of a header that has one value; for `Host` RFC 9112, section 3.2, demands status 400;
 * - HTTP/1.1: a `Host` that is no host and port (the same section);
 * - HTTP/2: `:authority` and `Host` that differ (RFC 9113, section 8.3.1).
 *
 * @param raw names and values in turn, as received
 * @returns `INVALID_FIELD` with the header's name as `header` in its metadata; undefined if the headers are unambiguous
 */
export function ambiguousHeaders(raw: readonly string[], httpVersion: 1 | 2): Refusal | undefined {
  let seen: Set<string> | undefined;
  let authority: string | undefined;
  let scheme: string | undefined;
  let host: string | undefined;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index]?.toLowerCase() ?? "";
    const value = raw[index + 1] ?? "";
    if (name === ":authority") authority = value;
    else if (name === ":scheme") scheme = value;
    const title = SINGLE.get(name);
    if (title === undefined) continue;
    seen ??= new Set();
    if (seen.has(name)) {
      return invalid(name, `The request has ${countOf(name, raw)} ${title} headers: send exactly one.`);
    }
    seen.add(name);
    if (name === "host") host = value;
  }
  if (host === undefined) return undefined;
  if (httpVersion === 1 && !HOST_AND_PORT.test(host)) {
    return invalid("host", "The Host header is not a host with an optional port: send one, such as localhost:8080.");
  }
  if (authority !== undefined && normalized(authority, scheme) !== normalized(host, scheme)) {
    return invalid(
      "host",
      ":authority and Host of the request differ: send only :authority, or the same value in both.",
    );
  }
  return undefined;
}

function countOf(name: string, raw: readonly string[]): number {
  return raw.filter((text, index) => index % 2 === 0 && text.toLowerCase() === name).length;
}

/** The form in which authorities are compared: in lower case, without the default port of the scheme. */
function normalized(authority: string, scheme: string | undefined): string {
  return authority.toLowerCase().replace(scheme === "https" ? /:(443)?$/ : /:(80)?$/, "");
}

function invalid(header: string, message: string): Refusal {
  return new Refusal("INVALID_FIELD", message, {
    metadata: { header },
    violations: [{ field: "", description: message }],
  });
}
