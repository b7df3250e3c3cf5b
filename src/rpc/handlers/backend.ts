import type { TokenDirectory } from "../../domain/api-token.ts";
import type { AgentDirectory, Call, UserDirectory } from "../../domain/directory.ts";
import type { BeatResult, ParsedBeat } from "../../domain/heartbeat.ts";
import type { Pace } from "../../domain/lease.ts";
import type { WatchMessage, WatchQuery } from "../../domain/watch-message.ts";

export type {
  AgentDirectory,
  AgentKey,
  Call,
  Fleet,
  Mutation,
  NewUser,
  Page,
  PageQuery,
  StatusTally,
  TransitionQuery,
  UserDirectory,
  UserKey,
} from "../../domain/directory.ts";
export type { WatchedChange, WatchMessage, WatchQuery } from "../../domain/watch-message.ts";

/**
 * What the handlers ask of the rest of the program: the whole service without its transport. The server wires it;
 * tests of the transport put a small one of their own in its place. Every method refuses with a `Refusal`.
 */
export interface Backend {
  readonly users: UserDirectory;
  readonly agents: AgentDirectory;
  readonly heartbeats: Heartbeats;
  readonly watches: Watches;
  readonly tokens: TokenDirectory;
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
  /** Announced instead of the pace's interval where set: a new stream's second beat, sooner than the others. */
  readonly firstIntervalMs?: number | undefined;
}

/** What a session has to say to whoever carries its stream; never within a call of the session's own methods. */
export interface SessionListener {
  /** `take` has something to give, throws, or the session is over. */
  onNews(): void;
  /** After a `submit` that returned false: the next message may come. */
  onCapacity(): void;
}

export interface HeartbeatSession {
  /**
   * Takes one message; its envelope is judged already. False: no other one before `onCapacity`, which is not when this one
   * is acknowledged: a client that sends faster than the database applies is slowed down by it.
   */
  submit(sequence: bigint, beats: readonly ParsedBeat[]): boolean;
  /** The next thing to tell the client; undefined where there is nothing now. Throws the refusal that ended the session. */
  take(): SessionOutput | undefined;
  /** All is said after `finish`, or the session was closed. */
  readonly over: boolean;
  /** The client will send no more: `take` still gives what is due, then the session is over. Leases run on. */
  finish(): void;
  /** The stream is gone. Leases run on; what is unacknowledged may still be applied. Never throws, may be repeated. */
  close(): void;
}

/** What a unary heartbeat says besides its beats. */
export interface UnaryOptions {
  readonly clawIdentifier: string | undefined;
  readonly leaseMs: number;
  /** Beats that are not applied when it ends are not applied at all. Absent: they are tried for as long as changes are. */
  readonly call?: Call;
}

export interface Heartbeats {
  /** The pace in force, `intervalMs` already jittered. */
  pace(): Pace;
  openSession(options: SessionOptions, listener: SessionListener): HeartbeatSession;
  /** A unary heartbeat: holds no session. One result a beat, in order. */
  beat(beats: readonly ParsedBeat[], options: UnaryOptions): Promise<readonly BeatResult[]>;
}

export interface Watches {
  /** Ends when `signal` is aborted; throws a `Refusal` where the contract says so. Connections take turns. */
  watch(query: WatchQuery, signal: AbortSignal, connection?: object): AsyncIterable<WatchMessage>;
}
