import { isIPv6 } from "node:net";
import type { JwtTrust } from "../domain/jwt-claims.ts";
import { isLoopback } from "../domain/loopback.ts";
import { JWT_SETTINGS, jwtOf } from "./jwt.ts";
import type { ADDRESS_SETTINGS } from "./listeners.ts";
import type { Reporter } from "./problems.ts";
import { type Definition, either, oneOf, path, type ValuesOf } from "./setting.ts";
import type { TlsChoice } from "./tls.ts";
import { formatAddress } from "./values.ts";

/** Whether callers need a credential. Our own API tokens are always accepted. */
export type AccessChoice =
  | {
      readonly kind: "open";
      /** Names by which the listeners may be called, besides those of this machine; in lower case. */
      readonly allowedHosts: readonly string[];
    }
  | {
      readonly kind: "credentials";
      /** A proxy in front of the listeners terminates TLS. They serve cleartext. */
      readonly tlsInFront: boolean;
      /** Undefined: JSON Web Tokens are rejected. */
      readonly jwt: JwtTrust | undefined;
      /** The file that maps certificates to principals. Undefined: certificates authenticate no caller. */
      readonly certificatePrincipals: string | undefined;
    };

/** Names or literal addresses, without ports; IPv6 in brackets or not. */
function parseHosts(given: string): readonly string[] | undefined {
  const hosts = given.split(",").map((host) =>
    host
      .trim()
      .toLowerCase()
      .replace(/^\[(.*)\]$/, "$1"),
  );
  return hosts.every((host) => /^[\p{L}\p{N}_.-]+$/u.test(host) || isIPv6(host)) ? hosts : undefined;
}

const allowedHosts: Definition<readonly string[] | undefined> = {
  placeholder: "<list>",
  description: "without required authentication: names that Host and Origin may have, besides localhost",
  defaultText: "none",
  fallback: undefined,
  allowed: "a list of names, separated by commas, without ports and wildcards",
  parse: parseHosts,
};

export const ACCESS_SETTINGS = {
  auth: oneOf(
    {
      placeholder: "<who>",
      description: "whether callers must authenticate; required on non-loopback addresses",
    },
    "none",
    ["none", "required"],
  ),
  allowedHosts,
  tlsInFront: either(
    {
      description: "whether TLS ends in front of the listeners, so that they may accept credentials in cleartext",
    },
    false,
    ["yes", "no"],
  ),
  ...JWT_SETTINGS,
  certificatePrincipals: path(
    {
      placeholder: "<file>",
      description: "the principals of client certificates, by their URI or DNS names, as JSON",
      defaultText: "none: certificates authenticate no client",
    },
    "a file",
  ),
};

type AccessKey = keyof typeof ACCESS_SETTINGS;

/** Settings that have no effect without `HARBORFORGE_AUTH=required`. */
const NEEDS_AUTH = ["jwtJwks", "jwtIssuer", "jwtAudience", "certificatePrincipals"] as const;

export function accessOf(values: ValuesOf<typeof ACCESS_SETTINGS>, reporter: Reporter<AccessKey>): AccessChoice {
  const { nameOf, report } = reporter;
  if (values.auth === "none") {
    const unused = NEEDS_AUTH.find((key) => values[key] !== undefined);
    if (unused !== undefined) {
      const name = nameOf(unused);
      report(unused, `${name} is set, but callers need no credential: set HARBORFORGE_AUTH=required, or unset it.`);
    }
    return { kind: "open", allowedHosts: values.allowedHosts ?? [] };
  }
  if (values.allowedHosts !== undefined) {
    report("allowedHosts", `${nameOf("allowedHosts")} is set, but HARBORFORGE_AUTH=required ignores it: unset it.`);
  }
  const { tlsInFront, certificatePrincipals } = values;
  return { kind: "credentials", tlsInFront, jwt: jwtOf(values, reporter), certificatePrincipals };
}

/**
 * Safe by default. A listener that other machines can reach needs `HARBORFORGE_AUTH=required`, and TLS, so that no credential
 * is sent in cleartext.
 */
export function checkExposure(
  addresses: ValuesOf<typeof ADDRESS_SETTINGS>,
  access: AccessChoice,
  tls: TlsChoice | undefined,
  { nameOf, report }: Reporter<keyof typeof ADDRESS_SETTINGS>,
): void {
  const reachable = (["grpcAddress", "httpAddress"] as const).filter((key) => !isLoopback(addresses[key].host));
  const [first] = reachable;
  if (first === undefined) return;
  const where = reachable.map((key) => `${nameOf(key)} is ${formatAddress(addresses[key])}`).join(", and ");
  if (access.kind === "open") {
    report(
      first,
      `${where}, which other machines can reach, but callers need no credential: ` +
        "set HARBORFORGE_AUTH=required, or listen on 127.0.0.1.",
    );
  } else if (tls === undefined && !access.tlsInFront) {
    report(
      first,
      `${where}, which other machines can reach, and credentials would be sent in cleartext: ` +
        "set HARBORFORGE_TLS_CERT_FILE and HARBORFORGE_TLS_KEY_FILE, or HARBORFORGE_TLS_IN_FRONT=yes if TLS ends in front.",
    );
  }
}

/** The principals of certificates have no effect as long as clients are not asked for certificates. */
export function checkCertificates(
  access: AccessChoice,
  tls: TlsChoice | undefined,
  { nameOf, report }: Reporter<AccessKey>,
): void {
  if (access.kind === "open" || access.certificatePrincipals === undefined) return;
  if ((tls?.clientCert ?? "none") !== "none") return;
  report(
    "certificatePrincipals",
    `${nameOf("certificatePrincipals")} is set, but clients are not asked for a certificate: ` +
      "set HARBORFORGE_TLS_CLIENT_CERT to optional or required.",
  );
}
