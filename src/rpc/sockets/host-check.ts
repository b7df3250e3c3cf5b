import { Refusal } from "../../domain/errors.ts";
import { isLoopback } from "../../domain/loopback.ts";

/** What a request says of where it goes and of which page it comes from; a client that is no browser may leave it all out. */
export interface Whereabouts {
  readonly ":authority"?: string | undefined;
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}

/** Why a request is none that this machine's own user made; undefined where it may be one. */
export type HostCheck = (headers: Whereabouts) => Refusal | undefined;

/**
 * Where nobody shows a credential, whatever is in the browser of this machine could call: a page whose own name was made to lead
 * here (DNS rebinding), or one that simply posts to 127.0.0.1. Browsers cannot help to say so, the one in `Host` or `:authority`,
 * the other in `Origin`. So both have to be names of this machine, or among `allowed`: names without ports, of any letter case.
 */
export function createHostCheck(allowed: readonly string[]): HostCheck {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  const isOurs = (authority: string): boolean => {
    const host = hostOf(authority);
    return host !== undefined && (isLoopback(host) || names.has(host));
  };
  return (headers) => {
    for (const authority of [headers[":authority"], headers.host]) {
      if (authority !== undefined && authority !== "" && !isOurs(authority)) return elsewhere("Host");
    }
    const { origin } = headers;
    if (origin === undefined) return undefined;
    const [, authority] = /^https?:\/\/([^/]+)$/i.exec(origin) ?? [];
    return authority !== undefined && isOurs(authority) ? undefined : elsewhere("Origin");
  };
}

/** Without port and brackets; undefined for what is no host and port, and so nobody's. */
function hostOf(authority: string): string | undefined {
  const [, bracketed, plain] = /^(?:\[([\da-f:.]+)\]|([^:[\]@/\\?#,\s]+))(?::\d{1,5})?$/i.exec(authority) ?? [];
  return (bracketed ?? plain)?.toLowerCase().replace(/\.$/, "");
}

function elsewhere(header: "Host" | "Origin"): Refusal {
  return new Refusal(
    "PERMISSION_DENIED",
    `The ${header} of this request is not this machine, and this service asks nobody for a credential: use localhost, ` +
      "127.0.0.1 or [::1], or set HARBORFORGE_ALLOWED_HOSTS to the name, or HARBORFORGE_AUTH=required.",
    { metadata: { header: header.toLowerCase() } },
  );
}
