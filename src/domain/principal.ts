import type { Micros } from "../../common/contract/time.ts";
import type { Transition } from "./agent.ts";
import { Refusal } from "./errors.ts";
import type { AgentFilter, Filterable } from "./filter.ts";

/** The roles of callers. The RPC layer has the table of methods and roles. */
export const ROLES = ["agent", "service", "admin", "viewer"] as const;
export type Role = (typeof ROLES)[number];

/** The agents that an agent's credential covers: by name, or all that live in one claw at the time. */
export type AgentScope =
  | { readonly kind: "agents"; readonly agentIds: ReadonlySet<string> }
  | { readonly kind: "claw"; readonly clawIdentifier: string };

/**
 * The rights of a credential. Only the role `agent` has a scope: it limits what the caller may read and send beats for.
 */
export type Grant =
  | { readonly role: "agent"; readonly scope: AgentScope }
  | { readonly role: Exclude<Role, "agent">; readonly scope?: undefined };

/** An authenticated caller. */
export type Principal = (Grant | { readonly role: "anyone"; readonly scope?: undefined }) & {
  /** The name in transitions and in the audit log: 1 to 128 code points. */
  readonly name: string;
  /** The credential that it used, e.g. `token:4gk2…`. Never a secret. */
  readonly credential: string;
  /** When the credential expires. Undefined: another mechanism limits it. */
  readonly expiresAt: Micros | undefined;
};

/** Every caller of a service without authentication. It may do everything. */
export const ANYONE: Principal = { role: "anyone", name: "anonymous", credential: "none", expiresAt: undefined };

/** The credentials of a call. */
export interface Credentials {
  /** The whole `authorization` header. */
  readonly authorization: string | null;
  /** The names in the verified certificate of the peer. */
  readonly peer:
    | { readonly uris: readonly string[]; readonly dnsNames: readonly string[]; readonly expiresAt: Micros }
    | undefined;
}

/** A caller, and a way to learn when its credential ends. */
export interface Caller {
  readonly principal: Principal;
  /**
   * Calls `end` once when the credential expires or is revoked, at once if it has already. Returns a function that
   * cancels it. Absent: the credential lasts as long as the connection.
   */
  whileValid?(end: (refusal: Refusal) => void): () => void;
}

/**
 * Authenticates a call. Most credentials are cached, so the result is often not a promise.
 *
 * @throws Refusal `UNAUTHENTICATED`; `DATABASE_UNAVAILABLE` if the credential cannot be checked at the moment
 */
export type Authenticate = (credentials: Credentials) => Caller | Promise<Caller>;

/** The actor in transitions: `agent:…`, `service:…`, `user:…`. */
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
 * The owner of a `request_id`: role and name, for all credentials of the principal. The texts are unique, because no
 * role contains a colon.
 */
export function requesterOf({ role, name }: Pick<Principal, "role" | "name">): string {
  return `${role}:${name}`;
}

/** Whether an agent is in a scope. Without a scope each agent is. */
export function isWithin(
  scope: AgentScope | undefined,
  agent: Pick<Filterable, "agentId" | "clawIdentifier">,
): boolean {
  if (scope === undefined) return true;
  return scope.kind === "agents" ? scope.agentIds.has(agent.agentId) : agent.clawIdentifier === scope.clawIdentifier;
}

/** Replaces the name of a claw that the caller may not see. */
const HIDDEN_CLAW = "";

/**
 * A transition as a caller with this scope may see it. A claw's credential sees that an agent came or left, but not the
 * name of the other claw. An agent's own credential may see the claw of its agent.
 */
export function transitionWithin(scope: AgentScope, transition: Transition): Transition {
  if (scope.kind !== "claw") return transition;
  const visible = (claw: string | null): string | null =>
    claw === null || claw === scope.clawIdentifier ? claw : HIDDEN_CLAW;
  const [fromClaw, toClaw] = [visible(transition.fromClaw), visible(transition.toClaw)];
  // The same object if nothing is hidden: its encoding is shared by all watchers.
  if (fromClaw === transition.fromClaw && toClaw === transition.toClaw) return transition;
  return { ...transition, fromClaw, toClaw };
}

/** An agent's name has at least one character, so a filter for this name matches nothing. */
const NO_NAME = "";

/** The intersection of a filter with a scope. If it is empty, the result is a filter that matches nothing. */
export function narrowFilter(scope: AgentScope | undefined, filter: AgentFilter): AgentFilter {
  if (scope === undefined) return filter;
  if (scope.kind === "agents") {
    return { ...filter, agentIds: narrow([...scope.agentIds], filter.agentIds) };
  }
  return { ...filter, clawIdentifiers: narrow([scope.clawIdentifier], filter.clawIdentifiers) };
}

/** An empty `requested` stands for all names. */
function narrow(allowed: readonly string[], requested: readonly string[]): readonly string[] {
  const wanted = new Set(requested);
  const both = requested.length === 0 ? allowed : allowed.filter((name) => wanted.has(name));
  return both.length === 0 ? [NO_NAME] : both;
}

/** Rejects a call without a valid credential. `why` is for the caller, and quotes nothing that the caller sent. */
export function unauthenticated(why: string): Refusal {
  return new Refusal("UNAUTHENTICATED", why);
}

/** Rejects a call that the caller's role does not allow. */
export function roleDenied(role: string, method: string): Refusal {
  return new Refusal("PERMISSION_DENIED", `The role ${role} may not call ${method}.`, { metadata: { role, method } });
}

/**
 * Rejects a call for an agent outside of the caller's scope. Existing and missing agents get the same error: otherwise
 * it would reveal which exist.
 */
export function agentDenied(agentId: string): Refusal {
  return new Refusal("PERMISSION_DENIED", `This credential does not cover the agent ${JSON.stringify(agentId)}.`, {
    metadata: { agentId },
  });
}

/** Like `agentDenied`, for an agent that the call names by its user. */
export function userDenied(userId: bigint): Refusal {
  return new Refusal("PERMISSION_DENIED", `This credential does not cover the agent of the user ${userId}.`, {
    metadata: { userId: userId.toString() },
  });
}
