import type { IncomingHttpHeaders } from "node:http";

/** What no credential looks like: who shows it is known to have shown something, and nobody is let in by it. */
const NONE = "?";

/**
 * Puts something that lets nobody in where there are two `authorization` headers, of which Node shows the first and what stands
 * in front may have looked at the other, or where there is one that gRPC does not carry, which grpc-js drops: the caller would then
 * be taken for one that shows nothing but its certificate.
 *
 * @param raw names and values in turn, as they came
 */
export function refuseAmbiguous(headers: IncomingHttpHeaders, raw: readonly string[]): void {
  const { authorization } = headers;
  if (authorization === undefined) return;
  let count = 0;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index];
    if (name?.length === "authorization".length && name.toLowerCase() === "authorization") count += 1;
  }
  if (count > 1 || /[^\x20-\x7e]/.test(authorization)) headers.authorization = NONE;
}
