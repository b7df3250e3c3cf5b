import { isIPv6 } from "node:net";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import {
  type ClaimPaths,
  JWT_ALGORITHMS,
  type JwtAlgorithm,
  type JwtTrust,
  OWN_ROLE_NAMES,
  type RoleNames,
} from "../domain/jwt-claims.ts";
import { isLoopback } from "../domain/loopback.ts";
import { ROLES, type Role } from "../domain/principal.ts";
import { duration, type Facts, oneOf, type Setting } from "./setting.ts";
import { type Address, formatAddress } from "./values.ts";

/** Who is let in: everybody, or who shows a credential. Tokens of our own always count. */
export type AccessChoice =
  | {
      readonly kind: "open";
      /** Names by which the listeners may be called, besides those of this machine itself; in lower case. */
      readonly allowedHosts: readonly string[];
    }
  | {
      readonly kind: "credentials";
      /** TLS ends before the listeners, which speak cleartext to whatever does it. */
      readonly tlsInFront: boolean;
      /** Undefined: no JSON Web Tokens. */
      readonly jwt: JwtTrust | undefined;
      /** The file that says whom certificates stand for. Undefined: they stand for nobody. */
      readonly certificatePrincipals: string | undefined;
    };

function text(facts: Facts, allowed: string): Setting<string | undefined> {
  return {
    ...facts,
    fallback: undefined,
    secret: false,
    allowed,
    parse: (given) => (given === "" || given.length > 1_000 || /\p{Cc}/u.test(given) ? undefined : given),
  };
}

const CLAIM_NAMES = ["principal", "role", "agents", "claw"] as const;
const DEFAULT_CLAIMS: ClaimPaths = { principal: "sub", role: "role", agents: "agent_ids", claw: "claw_identifier" };

/** `a=b,c=d`; undefined for what is no such list, or has a key twice. */
function pairs(given: string): ReadonlyMap<string, string> | undefined {
  const found = new Map<string, string>();
  for (const pair of given.split(",")) {
    const [, key = "", value = ""] = /^\s*([^=]+?)\s*=\s*(.+?)\s*$/.exec(pair) ?? [];
    if (key === "" || value === "" || found.has(key)) return undefined;
    found.set(key, value);
  }
  return found;
}

function parseClaims(given: string): ClaimPaths | undefined {
  const named = pairs(given);
  if (named === undefined || ![...named.keys()].every((key) => CLAIM_NAMES.some((name) => name === key)))
    return undefined;
  const path = (name: (typeof CLAIM_NAMES)[number]): string => named.get(name) ?? DEFAULT_CLAIMS[name];
  return { principal: path("principal"), role: path("role"), agents: path("agents"), claw: path("claw") };
}

function parseRoles(given: string): RoleNames | undefined {
  const roles = new Map<string, Role>();
  for (const [name, value] of pairs(given) ?? []) {
    const role = ROLES.find((one) => one === value);
    if (role === undefined) return undefined;
    roles.set(name, role);
  }
  return roles.size === 0 ? undefined : roles;
}

function parseAlgorithms(given: string): readonly JwtAlgorithm[] | undefined {
  const asked = given.split(",").map((name) => name.trim());
  const known = JWT_ALGORITHMS.filter((name) => asked.includes(name));
  return known.length === new Set(asked).size ? known : undefined;
}

function parsePlace(given: string): URL | undefined {
  if (given === "" || /\p{Cc}/u.test(given)) return undefined;
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(given)) return pathToFileURL(resolve(given));
  const url = URL.parse(given);
  if (url === null || url.username !== "" || url.password !== "") return undefined;
  if (url.protocol === "https:" || url.protocol === "file:") return url;
  // Whoever is between could put keys of their own in place of the issuer's.
  return url.protocol === "http:" && isLoopback(url.hostname.replace(/^\[|\]$/g, "")) ? url : undefined;
}

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

export const ACCESS_SETTINGS = {
  auth: oneOf(
    {
      env: "HARBORFORGE_AUTH",
      flag: "auth",
      placeholder: "<who>",
      description: "whether callers must authenticate; required on non-loopback addresses",
      defaultText: "none",
      fallback: "none",
    },
    ["none", "required"],
  ),
  allowedHosts: {
    env: "HARBORFORGE_ALLOWED_HOSTS",
    flag: "allowed-hosts",
    placeholder: "<list>",
    description: "without required authentication: names that Host and Origin may have, besides localhost",
    defaultText: "none",
    fallback: undefined,
    allowed: "a list of names, separated by commas, without ports and wildcards",
    secret: false,
    parse: parseHosts,
  } satisfies Setting<readonly string[] | undefined>,
  tlsInFront: oneOf(
    {
      env: "HARBORFORGE_TLS_IN_FRONT",
      flag: "tls-in-front",
      placeholder: "<yes|no>",
      description: "whether TLS ends in front of the listeners, so that they may accept credentials in cleartext",
      defaultText: "no",
      fallback: "no",
    },
    ["no", "yes"],
  ),
  jwtJwks: {
    env: "HARBORFORGE_JWT_JWKS",
    flag: "jwt-jwks",
    placeholder: "<file or URL>",
    description: "the key set (JWKS) that verifies JSON Web Tokens",
    defaultText: "none: they are rejected",
    fallback: undefined,
    allowed: "the path of a file, or an https URL (http on loopback only) without a password",
    secret: false,
    parse: parsePlace,
  } satisfies Setting<URL | undefined>,
  jwtIssuer: text(
    {
      env: "HARBORFORGE_JWT_ISSUER",
      flag: "jwt-issuer",
      placeholder: "<text>",
      description: "the required issuer of JSON Web Tokens (`iss`)",
      defaultText: "none",
    },
    "text without control characters",
  ),
  jwtAudience: text(
    {
      env: "HARBORFORGE_JWT_AUDIENCE",
      flag: "jwt-audience",
      placeholder: "<text>",
      description: "the required audience of JSON Web Tokens (`aud`)",
      defaultText: "none",
    },
    "text without control characters",
  ),
  jwtAlgorithms: {
    env: "HARBORFORGE_JWT_ALGORITHMS",
    flag: "jwt-algorithms",
    placeholder: "<list>",
    description: "the allowed signature algorithms of JSON Web Tokens",
    defaultText: "RS256,ES256,EdDSA",
    fallback: ["RS256", "ES256", "EdDSA"],
    allowed: `a list, separated by commas, of ${JWT_ALGORITHMS.join(", ")}`,
    secret: false,
    parse: parseAlgorithms,
  } satisfies Setting<readonly JwtAlgorithm[]>,
  jwtClaims: {
    env: "HARBORFORGE_JWT_CLAIMS",
    flag: "jwt-claims",
    placeholder: "<list>",
    description: "the claims of a JSON Web Token that identify its bearer; omitted ones have their default",
    defaultText: "principal=sub,role=role,agents=agent_ids,claw=claw_identifier",
    fallback: DEFAULT_CLAIMS,
    allowed:
      "a list, separated by commas, of principal, role, agents and claw, each with = and a claim or a path by dots",
    secret: false,
    parse: parseClaims,
  } satisfies Setting<ClaimPaths>,
  jwtRoles: {
    env: "HARBORFORGE_JWT_ROLES",
    flag: "jwt-roles",
    placeholder: "<list>",
    description: "the names of the roles at the issuer of JSON Web Tokens",
    defaultText: "agent=agent,service=service,admin=admin,viewer=viewer",
    fallback: OWN_ROLE_NAMES,
    allowed: `a list, separated by commas, of the issuer's names, each with = and one of ${ROLES.join(", ")}`,
    secret: false,
    parse: parseRoles,
  } satisfies Setting<RoleNames>,
  jwtClockTolerance: duration(
    {
      env: "HARBORFORGE_JWT_CLOCK_TOLERANCE",
      flag: "jwt-clock-tolerance",
      placeholder: "<duration>",
      description: "how far the clock of the issuer of JSON Web Tokens may be ahead; it does not extend `exp`",
      defaultText: "5s",
      fallback: 5_000,
    },
    0,
    60_000,
  ),
  certificatePrincipals: {
    ...text(
      {
        env: "HARBORFORGE_CERTIFICATE_PRINCIPALS",
        flag: "certificate-principals",
        placeholder: "<file>",
        description: "the principals of client certificates, by their URI or DNS names, as JSON",
        defaultText: "none: certificates authenticate no client",
      },
      "the path of a file, without control characters",
    ),
    parse: (given: string) => (given === "" || /\p{Cc}/u.test(given) ? undefined : resolve(given)),
  },
};

/** The values of the settings above, as they were read. */
export interface AccessValues {
  readonly auth: "none" | "required";
  readonly allowedHosts: readonly string[] | undefined;
  readonly tlsInFront: "no" | "yes";
  readonly jwks: URL | undefined;
  readonly issuer: string | undefined;
  readonly audience: string | undefined;
  readonly algorithms: readonly JwtAlgorithm[];
  readonly claims: ClaimPaths;
  readonly roleNames: RoleNames;
  readonly clockToleranceMs: number;
  readonly certificatePrincipals: string | undefined;
}

/** Takes down which setting is wrong, and a sentence that says what to do about it. */
type Wrong = (name: string, sentence: string) => void;

/** What the settings mean together. */
export function accessOf(values: AccessValues, wrong: Wrong): AccessChoice {
  const { auth, tlsInFront, jwks, issuer, audience, algorithms, claims, roleNames, clockToleranceMs } = values;
  const { jwtJwks, jwtIssuer, jwtAudience, certificatePrincipals: certificates } = ACCESS_SETTINGS;
  const given = [
    { name: jwtJwks.env, value: jwks },
    { name: jwtIssuer.env, value: issuer },
    { name: jwtAudience.env, value: audience },
  ];
  const missing = given.filter(({ value }) => value === undefined).map(({ name }) => name);
  const set = [...given, { name: certificates.env, value: values.certificatePrincipals }].find(
    ({ value }) => value !== undefined,
  );
  if (auth === "none") {
    if (set !== undefined)
      wrong(set.name, `${set.name} is set, but nobody has to show a credential: set HARBORFORGE_AUTH=required.`);
    return { kind: "open", allowedHosts: values.allowedHosts ?? [] };
  }
  if (values.allowedHosts !== undefined) {
    const { env } = ACCESS_SETTINGS.allowedHosts;
    wrong(env, `${env} is set, but with HARBORFORGE_AUTH=required nobody's Host is looked at: leave it out.`);
  }
  let jwt: JwtTrust | undefined;
  if (jwks !== undefined && issuer !== undefined && audience !== undefined) {
    jwt = { jwks, issuer, audience, algorithms, claims, roleNames, clockToleranceMs };
  } else if (missing.length < given.length) {
    wrong(
      missing[0] ?? jwtJwks.env,
      `JSON Web Tokens cannot be checked without ${missing.join(" and ")}: set ${missing.length === 1 ? "it" : "them"}, too.`,
    );
  }
  return {
    kind: "credentials",
    tlsInFront: tlsInFront === "yes",
    jwt,
    certificatePrincipals: values.certificatePrincipals,
  };
}

/**
 * Safe by default: where others than this machine can reach a listener, nobody is let in without a credential, and no
 * credential travels in cleartext, unless somebody said that it does not.
 */
export function exposed(
  listeners: readonly { readonly name: string; readonly address: Address }[],
  access: AccessChoice,
  tls: boolean,
  wrong: Wrong,
): void {
  const open = listeners.filter(({ address }) => !isLoopback(address.host));
  const [first] = open;
  if (first === undefined) return;
  const where = open.map(({ name, address }) => `${name} is ${formatAddress(address)}`).join(", and ");
  if (access.kind === "open") {
    wrong(
      first.name,
      `${where}, which others than this machine can reach, and nobody would have to show a credential: ` +
        "set HARBORFORGE_AUTH=required, or listen on 127.0.0.1.",
    );
  } else if (!tls && !access.tlsInFront) {
    wrong(
      first.name,
      `${where}, which others than this machine can reach, and credentials would travel there in cleartext: ` +
        "set HARBORFORGE_TLS_CERT_FILE and HARBORFORGE_TLS_KEY_FILE, or HARBORFORGE_TLS_IN_FRONT=yes if TLS ends in front.",
    );
  }
}

/** Whom certificates stand for is of no use where nobody is asked for one. */
export function unasked(access: AccessChoice, clientCert: "none" | "optional" | "required", wrong: Wrong): void {
  if (access.kind === "open" || access.certificatePrincipals === undefined || clientCert !== "none") return;
  const { env } = ACCESS_SETTINGS.certificatePrincipals;
  wrong(
    env,
    `${env} is set, but no client is asked for a certificate: set HARBORFORGE_TLS_CLIENT_CERT to optional or required.`,
  );
}
