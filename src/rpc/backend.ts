import type { Agent, AgentStatus, Transition, User } from "../domain/agent.ts";
import type { AgentFilter, ChangeType } from "../domain/filter.ts";
import type { BeatResult, ParsedBeat } from "../domain/heartbeat.ts";
import type { Pace } from "../domain/lease.ts";
import type { ServiceWord } from "../domain/status-machine.ts";

/**
 * What the handlers ask of the rest of the program: the whole service without its transport. The server wires it;
 * tests of the transport put a small one of their own in its place. Every method refuses with a `Refusal`.
 */
export interface Backend {
  readonly users: UserDirectory;
  readonly agents: AgentDirectory;
  readonly heartbeats: Heartbeats;
  readonly watches: Watches;
}

/** Who asks for a change, and how a repetition of the request is known. */
export interface Mutation {
  /** `service:…`, `user:…`: kept in the transition. */
  readonly actor: string;
  /** `fingerprint` stands for method and content, so that the same id with other content is told apart. */
  readonly request: { readonly id: string; readonly fingerprint: string } | undefined;
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

export interface UserDirectory {
  create(user: NewUser, mutation: Mutation): Promise<{ readonly user: User; readonly agent: Agent | undefined }>;
  get(key: UserKey): Promise<User>;
  list(page: PageQuery): Promise<Page<User>>;
  /** Undefined fields stay; a null email is removed. */
  update(
    id: bigint,
    change: { readonly email?: string | null; readonly displayName?: string },
    mutation: Mutation,
  ): Promise<User>;
  delete(id: bigint, mutation: Mutation): Promise<void>;
}

export interface StatusTally {
  readonly statuses: ReadonlyMap<AgentStatus, bigint>;
}

export interface Fleet extends StatusTally {
  readonly claws: ReadonlyMap<string, StatusTally>;
  readonly revision: bigint;
}

export interface TransitionQuery {
  readonly agentId: string | undefined;
  /** Only transitions with a larger revision. */
  readonly afterRevision: bigint;
  readonly newestFirst: boolean;
  /** The last revision of the page before. */
  readonly after: bigint | undefined;
  /** The newest revision that the list shows: fixed by its first page, so that it is stable while new ones arrive. */
  readonly upTo: bigint | undefined;
  readonly limit: number;
}

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
    word: ServiceWord,
    expectedRevision: bigint | undefined,
    mutation: Mutation,
  ): Promise<Agent>;
  /** The revision of the deletion. */
  delete(agentId: string, mutation: Mutation): Promise<bigint>;
  transitions(query: TransitionQuery): Promise<Page<Transition> & { readonly upTo: bigint }>;
}

/** What the first message of a stream says of the claw behind it; all of it optional. */
export interface SessionOptions {
  readonly clawIdentifier: string | undefined;
  readonly instanceId: string | undefined;
  readonly generation: bigint;
}

export interface SessionOutput {
  /** All messages up to it are applied or refused. Cumulative; 0 before the first. */
  readonly acknowledgedSequence: bigint;
  readonly results: readonly BeatResult[];
  /** Set when the replica is about to stop: how soon the stream should be opened elsewhere, in milliseconds. */
  readonly reconnectWithinMs: number | undefined;
}

export interface HeartbeatSession {
  /**
   * Takes one message; its envelope is judged already. Resolves when the session can take another one, which is not
   * when this one is acknowledged: a client that sends faster than the database applies is slowed down by it.
   */
  submit(sequence: bigint, beats: readonly ParsedBeat[]): Promise<void>;
  /** The next thing to tell the client. Undefined: all is said after `finish`, or the session was closed. */
  next(): Promise<SessionOutput | undefined>;
  /** The client will send no more: `next` still yields what is due, then ends. Leases run on. */
  finish(): void;
  /** The stream is gone. Leases run on; what is unacknowledged may still be applied. Never throws, may be repeated. */
  close(): void;
}

export interface Heartbeats {
  /** The pace in force, `intervalMs` already jittered. */
  pace(): Pace;
  openSession(options: SessionOptions): HeartbeatSession;
  /** A unary heartbeat: holds no session. One result a beat, in order. */
  beat(
    beats: readonly ParsedBeat[],
    options: { readonly clawIdentifier: string | undefined; readonly leaseMs: number },
  ): Promise<readonly BeatResult[]>;
}

export interface WatchQuery {
  readonly filter: AgentFilter;
  /** Undefined: begin with a snapshot. */
  readonly afterRevision: bigint | undefined;
  readonly conflate: boolean;
  /** How often to say how far the stream has come, in milliseconds. */
  readonly bookmarkMs: number;
}

export interface WatchedChange {
  readonly type: ChangeType;
  readonly transition: Transition;
  /** How many transitions were merged into this one besides it. */
  readonly conflated: number;
}

export interface WatchMessage {
  /** Where to resume from; 0 before the snapshot is complete. */
  readonly revision: bigint;
  readonly snapshotAgents: readonly Agent[];
  readonly changes: readonly WatchedChange[];
  readonly bookmark: { readonly snapshotComplete: boolean } | undefined;
}

export interface Watches {
  /** Ends when `signal` is aborted; throws a `Refusal` where the contract says so. */
  watch(query: WatchQuery, signal: AbortSignal): AsyncIterable<WatchMessage>;
}
