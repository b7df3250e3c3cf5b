import type { Micros } from "../contract/time.ts";
import type { Transition } from "./agent.ts";
import { Refusal } from "./errors.ts";
import type { AgentFilter, Filterable } from "./filter.ts";

/** What a caller is, and so what it may do: the table of methods and roles is in the RPC layer. */
export const ROLES = ["agent", "service", "admin", "viewer"] as const;
export type Role = (typeof ROLES)[number];

/** The agents that an agent's credential speaks for, by name or as all that live in one claw at the time. */
export type AgentScope =
  | { readonly kind: "agents"; readonly agentIds: ReadonlySet<string> }
  | { readonly kind: "claw"; readonly clawIdentifier: string };

/** What a credential gives. Only agents have a scope: it bounds what they may read and whom they speak for. */
export type Grant =
  | { readonly role: "agent"; readonly scope: AgentScope }
  | { readonly role: Exclude<Role, "agent">; readonly scope?: undefined };

/** Who calls. */
export type Principal = (Grant | { readonly role: "anyone"; readonly scope?: undefined }) & {
  /** As transitions, the audit log and people know it: 1 to 128 code points. */
  readonly name: string;
  /** Which of its credentials it showed, e.g. `token:4gk2…`; never anything that would let somebody else in. */
  readonly credential: string;
  /** From then on the credential lets nobody in. Undefined: it is bounded by something else. */
  readonly expiresAt: Micros | undefined;
};

/** Everybody, while nobody has to show credentials: may do everything. */
export const ANYONE: Principal = { role: "anyone", name: "anonymous", credential: "none", expiresAt: undefined };

/** What a call carries that may say who is calling. */
export interface Credentials {
  /** The `authorization` header, whole. */
  readonly authorization: string | null;
  /** The names in the verified certificate of the connection's other end. */
  readonly peer:
    | { readonly uris: readonly string[]; readonly dnsNames: readonly string[]; readonly expiresAt: Micros }
    | undefined;
}

/** Somebody who has shown a credential, for as long as that is good. */
export interface Caller {
  readonly principal: Principal;
  /**
   * Calls `end` once, when the credential expires or is revoked; at once where it has already. Returns what stops that.
   * Absent: the credential lasts as long as the connection.
   */
  whileValid?(end: (refusal: Refusal) => void): () => void;
}

/**
 * Finds out who calls. In most cases it is known at once, which is why this is not always a promise.
 *
 * @throws Refusal `UNAUTHENTICATED`; `DATABASE_UNAVAILABLE` where nobody can say at the moment
 */
export type Authenticate = (credentials: Credentials) => Caller | Promise<Caller>;

/** As transitions record who changed something: `agent:…`, `service:…`, `user:…`. */
export function actorOf({ role, name }: Pick<Principal, "role" | "name">): string {
  switch (role) {
    case "agent":
      return `agent:${name}`;
    case "service":
    case "anyone":
      return `service:${name}`;
    case "admin":
    case "viewer":
      return `user:${name}`;
  }
}

/**
 * Whom a `request_id` belongs to: the role and the name, however many credentials show them. No two principals have the
 * same text, since no role has a colon in it.
 */
export function requesterOf({ role, name }: Pick<Principal, "role" | "name">): string {
  return `${role}:${name}`;
}

/** Whether an agent is within a scope; without one, every agent is. */
export function isWithin(
  scope: AgentScope | undefined,
  agent: Pick<Filterable, "agentId" | "clawIdentifier">,
): boolean {
  if (scope === undefined) return true;
  return scope.kind === "agents" ? scope.agentIds.has(agent.agentId) : agent.clawIdentifier === scope.clawIdentifier;
}

/** In place of the name of a claw that a caller is not told. */
const ANOTHER_CLAW = "";

/**
 * A transition as a caller with this scope is told of it. A claw's credential learns that an agent came or left, and not
 * the name of the other claw. An agent's own credential may read where its agent lives.
 */
export function transitionWithin(scope: AgentScope, transition: Transition): Transition {
  if (scope.kind !== "claw") return transition;
  const told = (claw: string | null): string | null =>
    claw === null || claw === scope.clawIdentifier ? claw : ANOTHER_CLAW;
  const [fromClaw, toClaw] = [told(transition.fromClaw), told(transition.toClaw)];
  // The same object where nothing is hidden: what is made of it is made once for everybody.
  if (fromClaw === transition.fromClaw && toClaw === transition.toClaw) return transition;
  return { ...transition, fromClaw, toClaw };
}

/** What no agent is named, since a name has at least one character: a filter for it lets nothing pass. */
const NOBODY = "";

/** What is asked for, as far as it is within the scope. Never wider: what does not overlap becomes a filter for nobody. */
export function narrowFilter(scope: AgentScope | undefined, filter: AgentFilter): AgentFilter {
  if (scope === undefined) return filter;
  if (scope.kind === "agents") {
    return { ...filter, agentIds: narrow([...scope.agentIds], filter.agentIds) };
  }
  return { ...filter, clawIdentifiers: narrow([scope.clawIdentifier], filter.clawIdentifiers) };
}

/** An empty list asks for everything. */
function narrow(allowed: readonly string[], asked: readonly string[]): readonly string[] {
  const wanted = new Set(asked);
  const both = asked.length === 0 ? allowed : allowed.filter((name) => wanted.has(name));
  return both.length === 0 ? [NOBODY] : both;
}

/** Nothing that a caller showed let it in. `why` is for the caller and quotes nothing that it sent. */
export function unauthenticated(why: string): Refusal {
  return new Refusal("UNAUTHENTICATED", why);
}

/** The caller is known and may not do this. */
export function roleDenied(role: string, method: string): Refusal {
  return new Refusal("PERMISSION_DENIED", `The role ${role} may not call ${method}.`, { metadata: { role, method } });
}

/**
 * The caller may not speak for, or read, this agent. The same whether there is such an agent or not: else it would tell
 * who exists.
 */
export function agentDenied(agentId: string): Refusal {
  return new Refusal("PERMISSION_DENIED", "This credential does not cover this agent.", { metadata: { agentId } });
}

/** As `agentDenied`, for an agent that was asked for by its user. */
export function userDenied(userId: bigint): Refusal {
  return new Refusal("PERMISSION_DENIED", "This credential does not cover this user's agent.", {
    metadata: { userId: userId.toString() },
  });
}
