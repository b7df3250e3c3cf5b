import { cors } from "@connectrpc/connect";
import type { NodeRequest, NodeResponse } from "./node-request.ts";

/**
 * Allows the page of a request to read the response, if its origin is allowed.
 *
 * @returns whether the request is a preflight of such a page, which `answerPreflight` answers
 */
export type CrossOrigin = (req: NodeRequest, res: NodeResponse) => boolean;

/** How long a browser keeps the answer to a preflight, in seconds: the most that Chromium allows. */
const PREFLIGHT_MAX_AGE_S = 7_200;

const ALLOWED_HEADERS = [...cors.allowedHeaders, "Authorization"].join(", ");
const EXPOSED_HEADERS = [...cors.exposedHeaders, "WWW-Authenticate"].join(", ");

/**
 * Cross-origin resource sharing (https://fetch.spec.whatwg.org/#http-cors-protocol), for Connect and gRPC-Web. It names the origin
 * itself and never `*`, because pages may send credentials. Responses to other origins stay as they are: browsers do not show them to
 * their pages.
 *
 * @param origins as browsers send them: in lower case, without the default port. If there are none, responses have no further headers
 */
export function createCrossOrigin(origins: readonly string[]): CrossOrigin {
  if (origins.length === 0) return () => false;
  const allowed = new Set(origins);
  return (req, res) => {
    // For caches: the response to another origin differs.
    res.setHeader("vary", "Origin");
    const { origin } = req.headers;
    if (origin === undefined || !allowed.has(origin)) return false;
    res.setHeader("access-control-allow-origin", origin);
    res.setHeader("access-control-allow-credentials", "true");
    res.setHeader("access-control-expose-headers", EXPOSED_HEADERS);
    return req.method === "OPTIONS" && req.headers["access-control-request-method"] !== undefined;
  };
}

/** What pages of allowed origins may send, whatever they ask for. */
export function answerPreflight(req: NodeRequest, res: NodeResponse): void {
  req.resume();
  res.writeHead(204, {
    "access-control-allow-methods": cors.allowedMethods.join(", "),
    "access-control-allow-headers": ALLOWED_HEADERS,
    "access-control-max-age": String(PREFLIGHT_MAX_AGE_S),
  });
  res.end();
}
