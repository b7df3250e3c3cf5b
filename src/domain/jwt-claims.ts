import { type Grant, ROLES, type Role } from "./principal.ts";

/** What a public key can check. `none` and what is signed by a shared secret (HS…) can never be allowed. */
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

/** Where a JWT says who its bearer is. A path goes into objects by dots: `realm_access.roles`. */
export interface ClaimPaths {
  readonly principal: string;
  /** A text, or a list of them. */
  readonly role: string;
  /** A list of `agent_id`. */
  readonly agents: string;
  readonly claw: string;
}

/** What the issuer calls a role, by that name. */
export type RoleNames = ReadonlyMap<string, Role>;

/** Who the bearer of some claims is; a sentence where they do not say, or say what cannot be. */
export type ClaimedPrincipal = { readonly name: string; readonly grant: Grant } | { readonly fault: string };

const LONGEST_NAME = 128;
const MOST_AGENTS = 1_000;

/** Where a bearer has several roles the first of these counts: each may do what those after it may, but for beating. */
const MIGHTIEST_FIRST: readonly Role[] = ["admin", "service", "viewer", "agent"];

/** Roles under their own names. */
export const OWN_ROLE_NAMES: RoleNames = new Map(ROLES.map((role) => [role, role]));

export function principalOfClaims(
  claims: Readonly<Record<string, unknown>>,
  paths: ClaimPaths,
  roleNames: RoleNames,
): ClaimedPrincipal {
  const name = claimAt(claims, paths.principal);
  if (!isName(name)) return { fault: `its claim ${paths.principal} does not name anybody (1 to 128 characters)` };
  const claimed = new Set(textsOf(claimAt(claims, paths.role)).map((text) => roleNames.get(text)));
  const role = MIGHTIEST_FIRST.find((one) => claimed.has(one));
  if (role === undefined) return { fault: `its claim ${paths.role} holds no role of this service` };
  if (role !== "agent") return { name, grant: { role } };
  const agents = claimAt(claims, paths.agents);
  const claw = claimAt(claims, paths.claw);
  if ((agents === undefined) === (claw === undefined)) {
    return { fault: `of its claims ${paths.agents} and ${paths.claw} an agent's token has exactly one` };
  }
  if (claw !== undefined) {
    if (!isName(claw)) return { fault: `its claim ${paths.claw} does not name a claw (1 to 128 characters)` };
    return { name, grant: { role, scope: { kind: "claw", clawIdentifier: claw } } };
  }
  if (!Array.isArray(agents) || agents.length === 0 || agents.length > MOST_AGENTS || !agents.every(isName)) {
    return { fault: `its claim ${paths.agents} is no list of 1 to ${MOST_AGENTS} agent ids` };
  }
  return { name, grant: { role, scope: { kind: "agents", agentIds: new Set(agents) } } };
}

/** A claim of the path as a whole wins: names of claims are often URLs, which have dots. */
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

/** As names are in the contract. */
function isName(value: unknown): value is string {
  return (
    typeof value === "string" &&
    value !== "" &&
    Array.from(value).length <= LONGEST_NAME &&
    !/\p{Cc}/u.test(value) &&
    value.isWellFormed()
  );
}

/** How JSON Web Tokens are checked. */
export interface JwtTrust {
  /** Of the key set: `https:`, `file:`, or `http:` on this machine. */
  readonly jwks: URL;
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly JwtAlgorithm[];
  readonly clockToleranceMs: number;
  readonly claims: ClaimPaths;
  readonly roleNames: RoleNames;
}
