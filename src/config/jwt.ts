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
import type { Reporter } from "./problems.ts";
import { type Definition, duration, text, type ValuesOf } from "./setting.ts";

const CLAIM_NAMES = ["principal", "role", "agents", "claw"] as const;
const DEFAULT_CLAIMS: ClaimPaths = { principal: "sub", role: "role", agents: "agent_ids", claw: "claw_identifier" };

/** `a=b,c=d`; undefined if the text is not such a list, or has a key twice. */
function parsePairs(given: string): ReadonlyMap<string, string> | undefined {
  const found = new Map<string, string>();
  for (const pair of given.split(",")) {
    const [, key = "", value = ""] = /^\s*([^=]+?)\s*=\s*(.+?)\s*$/.exec(pair) ?? [];
    if (key === "" || value === "" || found.has(key)) return undefined;
    found.set(key, value);
  }
  return found;
}

function parseClaims(given: string): ClaimPaths | undefined {
  const paths = parsePairs(given);
  if (paths === undefined || ![...paths.keys()].every((key) => CLAIM_NAMES.some((name) => name === key)))
    return undefined;
  const path = (name: (typeof CLAIM_NAMES)[number]): string => paths.get(name) ?? DEFAULT_CLAIMS[name];
  return { principal: path("principal"), role: path("role"), agents: path("agents"), claw: path("claw") };
}

function parseRoles(given: string): RoleNames | undefined {
  const roles = new Map<string, Role>();
  for (const [name, value] of parsePairs(given) ?? []) {
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

function parseFileOrUrl(given: string): URL | undefined {
  if (given === "" || /\p{Cc}/u.test(given)) return undefined;
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(given)) return pathToFileURL(resolve(given));
  const url = URL.parse(given);
  if (url === null || url.username !== "" || url.password !== "") return undefined;
  if (url.protocol === "https:" || url.protocol === "file:") return url;
  // Over http, a machine in between could replace the issuer's keys by its own.
  return url.protocol === "http:" && isLoopback(url.hostname.replace(/^\[|\]$/g, "")) ? url : undefined;
}

const jwtJwks: Definition<URL | undefined> = {
  placeholder: "<file or URL>",
  description: "the key set (JWKS) that verifies JSON Web Tokens",
  defaultText: "none: they are rejected",
  fallback: undefined,
  allowed: "the path of a file, or an https URL (http on loopback only) without a password",
  parse: parseFileOrUrl,
};

const jwtAlgorithms: Definition<readonly JwtAlgorithm[]> = {
  placeholder: "<list>",
  description: "the allowed signature algorithms of JSON Web Tokens",
  defaultText: "RS256,ES256,EdDSA",
  fallback: ["RS256", "ES256", "EdDSA"],
  allowed: `a list, separated by commas, of ${JWT_ALGORITHMS.join(", ")}`,
  parse: parseAlgorithms,
};

const jwtClaims: Definition<ClaimPaths> = {
  placeholder: "<list>",
  description: "the claims of a JSON Web Token that identify its bearer; omitted ones have their default",
  defaultText: "principal=sub,role=role,agents=agent_ids,claw=claw_identifier",
  fallback: DEFAULT_CLAIMS,
  allowed:
    "a list, separated by commas, of principal, role, agents and claw, each with = and a claim or a path by dots",
  parse: parseClaims,
};

const jwtRoles: Definition<RoleNames> = {
  placeholder: "<list>",
  description: "the names of the roles at the issuer of JSON Web Tokens",
  defaultText: "agent=agent,service=service,admin=admin,viewer=viewer",
  fallback: OWN_ROLE_NAMES,
  allowed: `a list, separated by commas, of the issuer's names, each with = and one of ${ROLES.join(", ")}`,
  parse: parseRoles,
};

export const JWT_SETTINGS = {
  jwtJwks,
  jwtIssuer: text({ placeholder: "<text>", description: "the required issuer of JSON Web Tokens (`iss`)" }),
  jwtAudience: text({ placeholder: "<text>", description: "the required audience of JSON Web Tokens (`aud`)" }),
  jwtAlgorithms,
  jwtClaims,
  jwtRoles,
  jwtClockTolerance: duration(
    {
      description: "how far the clock of the issuer of JSON Web Tokens may be ahead; it does not extend `exp`",
    },
    "5s",
    "0s",
    "1m",
  ),
};

const REQUIRED = ["jwtJwks", "jwtIssuer", "jwtAudience"] as const;

/** Undefined: JSON Web Tokens are rejected. */
export function jwtOf(
  values: ValuesOf<typeof JWT_SETTINGS>,
  { nameOf, report }: Reporter<keyof typeof JWT_SETTINGS>,
): JwtTrust | undefined {
  const { jwtJwks: jwks, jwtIssuer: issuer, jwtAudience: audience } = values;
  if (jwks !== undefined && issuer !== undefined && audience !== undefined) {
    const { jwtAlgorithms: algorithms, jwtClaims: claims, jwtRoles: roleNames, jwtClockTolerance } = values;
    return { jwks, issuer, audience, algorithms, claims, roleNames, clockToleranceMs: jwtClockTolerance };
  }
  const missing = REQUIRED.filter((key) => values[key] === undefined);
  const [first] = missing;
  if (first === undefined || missing.length === REQUIRED.length) return undefined;
  const them = missing.length === 1 ? "it" : "them";
  report(first, `JSON Web Tokens cannot be verified without ${missing.map(nameOf).join(" and ")}: set ${them}, too.`);
  return undefined;
}
