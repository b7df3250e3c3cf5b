import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { shorten } from "../errors/error-table.ts";
import { type NodeRequest, requestUrl } from "./node-request.ts";

/** What is wrong with the URL of a request, and with the message in it. Undefined: nothing. */
export function requestFault(req: NodeRequest, handler: UniversalHandler): string | undefined {
  try {
    requestUrl(req);
  } catch {
    return "the URL or its host is malformed";
  }
  return req.method === "GET" && handler.allowedMethods.includes("GET") ? queryFault(req) : undefined;
}

const QUERY_EXAMPLE =
  "a GET request needs ?connect=v1&encoding=json&message=…, with the message in JSON, percent-encoded";

/**
 * Why the message of a GET request is invalid; undefined if it is valid. It may be base64, and the library would report invalid
 * base64 as an internal error. Bytes that are not UTF-8, percent-encoded or not, would become other text in the URL's parser.
 */
function queryFault(req: NodeRequest): string | undefined {
  if (/[^\x21-\x7e]/.test(req.url ?? "")) return "the URL must be ASCII: percent-encode other characters";
  const { search, searchParams: query } = requestUrl(req);
  // Of two parameters with the same name, the library uses the first; a proxy or its cache may use the other.
  const names = new Set<string>();
  const twice = [...query.keys()].find((name) => names.size === names.add(name).size);
  if (twice !== undefined)
    return `the query has the parameter ${JSON.stringify(shorten(twice, 100))} more than once: send it once`;
  try {
    decodeURIComponent(search);
  } catch {
    return "the query must be UTF-8, percent-encoded";
  }
  const encoding = query.get("encoding");
  if (encoding === null) return `the query has no parameter encoding: ${QUERY_EXAMPLE}`;
  if (encoding !== "json" && encoding !== "proto") {
    return `the query has the encoding ${JSON.stringify(shorten(encoding, 100))}: use json or proto`;
  }
  const message = query.get("message");
  if (message === null && encoding === "json") return `the query has no parameter message: ${QUERY_EXAMPLE}`;
  if (query.get("base64") !== "1" || /^[A-Za-z0-9+/_-]*={0,2}$/.test(message ?? "")) return undefined;
  return "the message in the query is not base64, as its parameter base64=1 says";
}
