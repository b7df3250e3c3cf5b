import type { IncomingHttpHeaders } from "node:http";

/** No valid credential: the request counts as one with a credential, and authentication rejects it. */
const INVALID = "?";

/**
 * Replaces an ambiguous `authorization` header by an invalid one. With two of them, Node reads the first, and a proxy may have
 * checked the second. grpc-js drops one with characters that gRPC does not allow: the request would then be authenticated by its
 * client certificate alone.
 *
 * @param raw names and values in turn, as received
 */
export function refuseAmbiguous(headers: IncomingHttpHeaders, raw: readonly string[]): void {
  const { authorization } = headers;
  if (authorization === undefined) return;
  let count = 0;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index];
    if (name?.length === "authorization".length && name.toLowerCase() === "authorization") count += 1;
  }
  if (count > 1 || /[^\x20-\x7e]/.test(authorization)) headers.authorization = INVALID;
}
