import { type Grant, ROLES, type Role } from "./principal.ts";

/** Signature algorithms with a public key. `none` and shared secrets (HS…) are never allowed. */
export const JWT_ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
] as const;
export type JwtAlgorithm = (typeof JWT_ALGORITHMS)[number];

/** The claims that name the bearer of a JWT. Dots lead into objects: `realm_access.roles`. */
export interface ClaimPaths {
  readonly principal: string;
  /** A string or a list of strings. */
  readonly role: string;
  /** A list of `agent_id`s. */
  readonly agents: string;
  readonly claw: string;
}

/** Roles by the issuer's names for them. */
export type RoleNames = ReadonlyMap<string, Role>;

/** The bearer that the claims name, or the fault of the claims as part of a sentence. */
export type ClaimedPrincipal = { readonly name: string; readonly grant: Grant } | { readonly fault: string };

const LONGEST_NAME = 128;
const MAX_AGENTS = 1_000;

/**
 * The first of these that a bearer has counts. Each role includes the rights of those after it, except sending
 * heartbeats.
 */
const ROLES_BY_RANK: readonly Role[] = ["admin", "service", "viewer", "agent"];

/** Roles by the names of this service: the default. */
export const OWN_ROLE_NAMES: RoleNames = new Map(ROLES.map((role) => [role, role]));

/** The principal that verified claims stand for. */
export function principalOfClaims(
  claims: Readonly<Record<string, unknown>>,
  paths: ClaimPaths,
  roleNames: RoleNames,
): ClaimedPrincipal {
  const name = claimAt(claims, paths.principal);
  if (!isName(name)) return { fault: `the claim ${paths.principal} must name the principal with 1 to 128 characters` };
  const claimed = new Set(textsOf(claimAt(claims, paths.role)).map((text) => roleNames.get(text)));
  const role = ROLES_BY_RANK.find((one) => claimed.has(one));
  if (role === undefined) return { fault: `the claim ${paths.role} holds no role of this service` };
  if (role !== "agent") return { name, grant: { role } };
  const agents = claimAt(claims, paths.agents);
  const claw = claimAt(claims, paths.claw);
  if ((agents === undefined) === (claw === undefined)) {
    return { fault: `an agent's token must have exactly one of the claims ${paths.agents} and ${paths.claw}` };
  }
  if (claw !== undefined) {
    if (!isName(claw)) return { fault: `the claim ${paths.claw} must name a claw with 1 to 128 characters` };
    return { name, grant: { role, scope: { kind: "claw", clawIdentifier: claw } } };
  }
  if (!Array.isArray(agents) || agents.length === 0 || agents.length > MAX_AGENTS || !agents.every(isName)) {
    return { fault: `the claim ${paths.agents} must be a list of 1 to ${MAX_AGENTS} agent ids` };
  }
  return { name, grant: { role, scope: { kind: "agents", agentIds: new Set(agents) } } };
}

/** A claim whose name is the whole path takes precedence: claim names are often URLs, which have dots. */
function claimAt(claims: Readonly<Record<string, unknown>>, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let place: unknown = claims;
  for (const step of path.split(".")) {
    if (typeof place !== "object" || place === null || !Object.hasOwn(place, step)) return undefined;
    place = Reflect.get(place, step);
  }
  return place;
}

function textsOf(value: unknown): readonly string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}

/** The contract's rule for names. */
function isName(value: unknown): value is string {
  return (
    typeof value === "string" &&
    value !== "" &&
    Array.from(value).length <= LONGEST_NAME &&
    !/\p{Cc}/u.test(value) &&
    value.isWellFormed()
  );
}

/** How the service verifies JSON Web Tokens. */
export interface JwtTrust {
  /** The URL of the key set: `https:`, `file:`, or `http:` on this machine. */
  readonly jwks: URL;
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly JwtAlgorithm[];
  /** How far the issuer's clock may be ahead, in milliseconds. */
  readonly clockToleranceMs: number;
  readonly claims: ClaimPaths;
  readonly roleNames: RoleNames;
}
