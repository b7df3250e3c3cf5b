import type { TokenDirectory } from "../../domain/api-token.ts";
import type { Heartbeats } from "../../domain/claw-session.ts";
import type { AgentDirectory, UserDirectory } from "../../domain/directories.ts";
import type { WakeDirectory, WakeFollowing } from "../../domain/wake-directory.ts";
import type { FleetWatchMessage, FleetWatchQuery, WatchMessage, WatchQuery } from "../../domain/watch-message.ts";

export type {
  HeartbeatSession,
  Heartbeats,
  SessionListener,
  SessionOptions,
  UnaryOptions,
} from "../../domain/claw-session.ts";
export type {
  AgentDirectory,
  AgentKey,
  Call,
  Fleet,
  Incident,
  IncidentQuery,
  Mutation,
  NewUser,
  Page,
  PageQuery,
  StatusTally,
  TransitionQuery,
  UserDirectory,
  UserKey,
} from "../../domain/directories.ts";
export type { BeatResult, ClawMessage, SessionOutput } from "../../domain/message-to-claw.ts";
export type {
  FleetWatchMessage,
  FleetWatchQuery,
  WatchedChange,
  WatchMessage,
  WatchQuery,
} from "../../domain/watch-message.ts";

/**
 * What the handlers ask of the rest of the program: the whole service without its transport. The server wires it;
 * tests of the transport put a small one of their own in its place. Every method refuses with a `Refusal`.
 */
export interface Backend {
  readonly users: UserDirectory;
  readonly agents: AgentDirectory;
  readonly heartbeats: Heartbeats;
  readonly watches: Watches;
  readonly fleetWatches: FleetWatches;
  readonly tokens: TokenDirectory;
  readonly wakes: WakeDirectory;
  readonly wakeFollowing: WakeFollowing;
}

export interface Watches {
  /** Ends when `signal` is aborted; throws a `Refusal` where the contract says so. Connections take turns. */
  watch(query: WatchQuery, signal: AbortSignal, connection?: object): AsyncIterable<WatchMessage>;
}

export interface FleetWatches {
  /** Ends when `signal` is aborted; throws a `Refusal` where the contract says so. Connections take turns. */
  watch(query: FleetWatchQuery, signal: AbortSignal, connection?: object): AsyncIterable<FleetWatchMessage>;
}
