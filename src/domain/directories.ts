import type { AgentStatus, TransitionCause, Unknown } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { Agent, Transition, User } from "./agent.ts";
import type { AgentFilter } from "./filter.ts";
import type { AgentScope } from "./principal.ts";
import type { StatusRequest } from "./status-machine.ts";

/** The call that requests a change. The service commits nothing for a call that has ended. */
export interface Call {
  /** When its caller stops waiting, of `performance.now()`. */
  readonly deadline: number;
  /** Whether the call has ended: it was answered or cancelled, or its connection was closed. */
  readonly over: boolean;
}

/** Identifies a request, so that a repetition is recognised. */
export interface RequestKey {
  /** The requester (`requesterOf`): two principals may use the same id. */
  readonly principal: string;
  readonly id: string;
  /** A hash of method and content: the same id with other content is an error. */
  readonly fingerprint: string;
}

/** The requester of a change. */
export interface Mutation {
  /** `service:…`, `user:…`: stored in the transition. */
  readonly actor: string;
  readonly request: RequestKey | undefined;
  /** Absent: no call requested the change, so it may wait as long as any change. */
  readonly call?: Call;
}

/** A page by keyset: at most `limit` rows after `after`. */
export interface PageQuery {
  readonly after: bigint | undefined;
  readonly limit: number;
}

export interface Page<Row> {
  readonly rows: readonly Row[];
  /** The `after` of the next page; undefined on the last page. */
  readonly next: bigint | undefined;
}

export type UserKey = { readonly id: bigint } | { readonly username: string } | { readonly agentId: string };
export type AgentKey = { readonly agentId: string } | { readonly userId: bigint };

export interface NewUser {
  readonly username: string;
  readonly email: string | null;
  readonly displayName: string;
  readonly agent: { readonly agentId: string; readonly clawIdentifier: string } | undefined;
}

/** Undefined fields stay unchanged; null removes the email. */
export interface UserChange {
  readonly email?: string | null;
  readonly displayName?: string;
}

/** Reads and changes users. Methods reject with a `Refusal`. */
export interface UserDirectory {
  create(user: NewUser, mutation: Mutation): Promise<{ readonly user: User; readonly agent: Agent | undefined }>;
  get(key: UserKey): Promise<User>;
  list(page: PageQuery): Promise<Page<User>>;
  update(id: bigint, change: UserChange, mutation: Mutation): Promise<User>;
  /** Deletes the user's agent as well. */
  delete(id: bigint, mutation: Mutation): Promise<void>;
}

export interface StatusTally {
  readonly statuses: ReadonlyMap<AgentStatus | Unknown, bigint>;
  /** How many of them are suspect. Absent: none. */
  readonly suspects?: ReadonlyMap<AgentStatus | Unknown, bigint>;
}

/** The rate limit on lease expiry in a mass silence. */
export interface ExpiryBrake {
  /** Null: the brake is not engaged. */
  readonly engagedAt: Micros | null;
  /** Agents whose lease has expired and that are not offline yet. */
  readonly heldBack: bigint;
}

export interface Fleet extends StatusTally {
  readonly claws: ReadonlyMap<string, StatusTally>;
  /** Undefined for callers whose scope does not cover all agents. */
  readonly brake: ExpiryBrake | undefined;
  readonly revision: bigint;
}

export interface TransitionQuery {
  /** Includes deleted agents of this id. Undefined: all agents. */
  readonly agentId: string | undefined;
  /** Only transitions of these agents, while they were in the scope. */
  readonly scope?: AgentScope;
  /** Only transitions with one of these causes. Absent or empty: any. */
  readonly causes?: readonly TransitionCause[];
  /** Only transitions on this claw, including those to it and away from it. */
  readonly clawIdentifier?: string | undefined;
  /** Only transitions at this instant or later. */
  readonly since?: Micros | undefined;
  readonly incidentId?: string | undefined;
  /** Only transitions with a larger revision. 0: from the oldest one in the log. */
  readonly afterRevision: bigint;
  readonly newestFirst: boolean;
  /** The last revision of the page before. */
  readonly after: bigint | undefined;
  /**
   * The newest revision of the list. The first page fixes it, so that the list is stable while new transitions arrive.
   */
  readonly upTo: bigint | undefined;
  readonly limit: number;
}

/** A claw that fell silent. */
export interface Incident {
  readonly incidentId: string;
  readonly clawIdentifier: string;
  /** When the first agent went offline. */
  readonly since: Micros;
  /** When the first of its agents came back on the claw; null: the claw is still silent. */
  readonly endedAt: Micros | null;
  readonly agents: bigint;
  /** How many of them came back, on any claw. */
  readonly agentsBack: bigint;
  /** The newest heartbeat of the claw before; null: unknown. */
  readonly lastHeartbeat: Micros | null;
}

export interface IncidentQuery extends PageQuery {
  /** Undefined: of all claws. */
  readonly clawIdentifier: string | undefined;
  /** Only incidents of these agents; counts include no others. */
  readonly scope?: AgentScope;
}

/** Reads and changes agents. Methods reject with a `Refusal`. */
export interface AgentDirectory {
  create(
    agent: { readonly userId: bigint; readonly agentId: string; readonly clawIdentifier: string },
    mutation: Mutation,
  ): Promise<Agent>;
  get(key: AgentKey): Promise<Agent>;
  /**
   * In the requested order.
   *
   * @throws Refusal `AGENT_NOT_FOUND` that names all missing agents
   */
  getAll(agentIds: readonly string[]): Promise<readonly Agent[]>;
  /** `revision`: the page shows all changes up to it. */
  list(filter: AgentFilter, page: PageQuery): Promise<Page<Agent> & { readonly revision: bigint }>;
  fleet(filter: AgentFilter): Promise<Fleet>;
  move(agentId: string, clawIdentifier: string, mutation: Mutation): Promise<Agent>;
  updateStatus(
    agentId: string,
    wanted: StatusRequest,
    expectedRevision: bigint | undefined,
    mutation: Mutation,
  ): Promise<Agent>;
  /** @returns the revision of the deletion */
  delete(agentId: string, mutation: Mutation): Promise<bigint>;
  transitions(query: TransitionQuery): Promise<Page<Transition> & { readonly upTo: bigint }>;
  /** The incidents whose transitions are kept, the newest first. */
  incidents(query: IncidentQuery): Promise<Page<Incident>>;
}
