import { Refusal } from "../../domain/errors.ts";
import { isLoopback } from "../../domain/loopback.ts";

/** The headers of a request that name its server and the page that sent it. Clients other than browsers may omit them. */
export interface OriginHeaders {
  readonly ":authority"?: string | undefined;
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}

/** Returns the error for a request that a page of another site may have sent; undefined for any other. */
export type HostCheck = (headers: OriginHeaders) => Refusal | undefined;

/**
 * Protects a service without authentication from pages in this machine's browsers. Such a page can point its own host name to
 * this machine (DNS rebinding), which `Host` or `:authority` shows, or post to 127.0.0.1, which `Origin` shows. Both have to name
 * this machine, or a host of `allowed`: names without ports, in any letter case. `Origin` may also be one of `origins`.
 *
 * @param origins as browsers send them
 */
export function createHostCheck(allowed: readonly string[], origins: readonly string[] = []): HostCheck {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const known = new Set(origins);
  const isAllowed = (authority: string): boolean => {
    const host = hostOf(authority);
    return host !== undefined && (isLoopback(host) || names.has(host));
  };
  return (headers) => {
    for (const authority of [headers[":authority"], headers.host]) {
      if (authority !== undefined && authority !== "" && !isAllowed(authority)) return otherSite("Host");
    }
    const { origin } = headers;
    if (origin === undefined || known.has(origin)) return undefined;
    const [, authority] = /^https?:\/\/([^/]+)$/i.exec(origin) ?? [];
    return authority !== undefined && isAllowed(authority) ? undefined : otherSite("Origin");
  };
}

/** The host without port and brackets; undefined if `authority` is malformed. */
function hostOf(authority: string): string | undefined {
  const [, bracketed, plain] = /^(?:\[([\da-f:.]+)\]|([^:[\]@/\\?#,\s]+))(?::\d{1,5})?$/i.exec(authority) ?? [];
  return (bracketed ?? plain)?.toLowerCase().replace(/\.$/, "");
}

function otherSite(header: "Host" | "Origin"): Refusal {
  return new Refusal(
    "PERMISSION_DENIED",
    `The ${header} of this request is not this machine, and this service requires no credential: use localhost, ` +
      "127.0.0.1 or [::1], or set HARBORFORGE_ALLOWED_HOSTS to the name" +
      `${header === "Origin" ? " (HARBORFORGE_ALLOWED_ORIGINS to the origin)" : ""}, or HARBORFORGE_AUTH=required.`,
    { metadata: { header: header.toLowerCase() } },
  );
}
