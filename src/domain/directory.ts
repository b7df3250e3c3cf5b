import type { Micros } from "../contract/time.ts";
import type { AgentStatus } from "../contract/words.ts";
import type { Agent, Transition, User } from "./agent.ts";
import type { AgentFilter } from "./filter.ts";
import type { AgentScope } from "./principal.ts";
import type { StatusRequest } from "./status-machine.ts";

/** The call that asks for a change. Nothing is committed for a call that has ended. */
export interface Call {
  /** When its caller stops waiting, by `performance.now()`. */
  readonly deadline: number;
  /** Whether it has ended already: it was answered or cancelled, or its connection is gone. */
  readonly over: boolean;
}

/** How a repetition of a request is known. */
export interface RequestKey {
  /** Whose request it is (`requesterOf`): two principals may use the same id. */
  readonly principal: string;
  readonly id: string;
  /** Stands for method and content, so that the same id with other content is told apart. */
  readonly fingerprint: string;
}

/** Who asks for a change, and how a repetition of the request is known. */
export interface Mutation {
  /** `service:…`, `user:…`: kept in the transition. */
  readonly actor: string;
  readonly request: RequestKey | undefined;
  /** Absent for what no call asks for: it is tried for as long as a change is at most. */
  readonly call?: Call;
}

/** A page by keyset: what comes after `after`, at most `limit` rows. */
export interface PageQuery {
  readonly after: bigint | undefined;
  readonly limit: number;
}

export interface Page<Row> {
  readonly rows: readonly Row[];
  /** Where the next page begins; undefined on the last one. */
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

/** Undefined fields stay; a null email is removed. */
export interface UserChange {
  readonly email?: string | null;
  readonly displayName?: string;
}

/** The users, for who reads and changes them. Every method refuses with a `Refusal`. */
export interface UserDirectory {
  create(user: NewUser, mutation: Mutation): Promise<{ readonly user: User; readonly agent: Agent | undefined }>;
  get(key: UserKey): Promise<User>;
  list(page: PageQuery): Promise<Page<User>>;
  update(id: bigint, change: UserChange, mutation: Mutation): Promise<User>;
  /** The agent goes with its user. */
  delete(id: bigint, mutation: Mutation): Promise<void>;
}

export interface StatusTally {
  readonly statuses: ReadonlyMap<AgentStatus, bigint>;
}

/** The brake on the ends of leases in a mass silence. */
export interface ExpiryBrake {
  /** Null: it is not engaged. */
  readonly engagedAt: Micros | null;
  /** Agents whose leases have ended and that are not offline yet. */
  readonly heldBack: bigint;
}

export interface Fleet extends StatusTally {
  readonly claws: ReadonlyMap<string, StatusTally>;
  /** Undefined for who may not know of all agents. */
  readonly brake: ExpiryBrake | undefined;
  readonly revision: bigint;
}

export interface TransitionQuery {
  /** All agents that ever had this id, those that were deleted among them. */
  readonly agentId: string | undefined;
  /** Only of these agents: what became of them while they were within it. */
  readonly scope?: AgentScope;
  /** Only transitions with a larger revision. 0: from the oldest that is kept. */
  readonly afterRevision: bigint;
  readonly newestFirst: boolean;
  /** The last revision of the page before. */
  readonly after: bigint | undefined;
  /** The newest revision that the list shows: fixed by its first page, so that it is stable while new ones arrive. */
  readonly upTo: bigint | undefined;
  readonly limit: number;
}

/** The agents, for who reads and changes them. Every method refuses with a `Refusal`. */
export interface AgentDirectory {
  create(
    agent: { readonly userId: bigint; readonly agentId: string; readonly clawIdentifier: string },
    mutation: Mutation,
  ): Promise<Agent>;
  get(key: AgentKey): Promise<Agent>;
  /** In the order asked; refuses when one is missing, and names all that are. */
  getAll(agentIds: readonly string[]): Promise<readonly Agent[]>;
  /** `revision`: all changes after it are news to who has read the first page. */
  list(filter: AgentFilter, page: PageQuery): Promise<Page<Agent> & { readonly revision: bigint }>;
  fleet(filter: AgentFilter): Promise<Fleet>;
  move(agentId: string, clawIdentifier: string, mutation: Mutation): Promise<Agent>;
  updateStatus(
    agentId: string,
    word: StatusRequest,
    expectedRevision: bigint | undefined,
    mutation: Mutation,
  ): Promise<Agent>;
  /** The revision of the deletion. */
  delete(agentId: string, mutation: Mutation): Promise<bigint>;
  transitions(query: TransitionQuery): Promise<Page<Transition> & { readonly upTo: bigint }>;
}
