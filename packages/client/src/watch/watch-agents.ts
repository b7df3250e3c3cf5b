import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { AgentStatus } from "../../../../common/contract/enum-names.ts";
import { STATUS_VALUES } from "../../../../common/contract/enum-values.ts";
import { durationOf } from "../../../../common/contract/timestamps.ts";
import { pause } from "../../../../common/scheduling/timers.ts";
import type { Agent as AgentMessage } from "../../../../gen/watch/harborforge/agents/v1/agent_pb.ts";
import type {
  AgentChange,
  AgentService,
  WatchAgentsResponse,
} from "../../../../gen/watch/harborforge/agents/v1/agent_service_pb.ts";
import { type CallError, callErrorOf } from "../connection/call-error.ts";
import { CALL_TIMEOUT_MS, checkTimeout } from "../connection/call-timeout.ts";
import { createRetryPause } from "../connection/retry-pause.ts";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";
import { type AgentView, type ChangeView, views } from "../views.ts";

/** Which agents to watch: OR within a field, AND across fields. Each list has up to 1,000 values. */
export interface AgentFilter {
  readonly agentIds?: readonly string[];
  readonly userIds?: readonly bigint[];
  readonly clawIdentifiers?: readonly string[];
  readonly statuses?: readonly AgentStatus[];
}

/**
 * Why a watch sends a snapshot: it starts; the service no longer keeps the changes after the last revision; or the service lost
 * that part of its history in a restore or a failover, so that earlier events may not be true any more.
 */
export type SnapshotCause = "started" | "compacted" | "history_lost";

/** The events of a watch, in order. After handling one, a watch can resume from its `revision`. */
export type WatchEvent<Agent = AgentView, Change = ChangeView> =
  /** All agents that pass the filter, as of the revision. It replaces the earlier state. */
  | {
      readonly kind: "snapshot";
      readonly because: SnapshotCause;
      readonly agents: readonly Agent[];
      readonly revision: bigint;
    }
  /** Each change exactly once, in the order of revisions. */
  | { readonly kind: "changes"; readonly changes: readonly Change[]; readonly revision: bigint }
  /** The position of the watch, sent also when nothing happened. */
  | { readonly kind: "bookmark"; readonly revision: bigint }
  /** The stream broke and will resume. Until then the state may be out of date. */
  | { readonly kind: "interrupted"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface WatchOptions {
  /** Which agents. Default: all. */
  readonly filter?: AgentFilter;
  /** Where to begin: with a snapshot, or after the revision of an earlier watch with the same filter. Default: `snapshot`. */
  readonly from?: bigint | "snapshot";
  /** Whether the server may merge changes of one agent while this watcher is slow. Default: false. */
  readonly conflate?: boolean;
  /** The longest time without a message in milliseconds, 1,000 to 300,000. Default: 10,000. */
  readonly bookmarkMs?: number;
  /** How long the first message of a stream may take, in milliseconds; 0: no limit. Default: 10,000. */
  readonly timeoutMs?: number;
  /** Ends the watch at once, without an error. */
  readonly signal?: AbortSignal;
}

/** The callers of a watch. If they can open another connection, the watch uses it after its own broke. */
export interface WatchClients {
  readonly agents: Pick<Client<typeof AgentService>, "watchAgents">;
  readonly reconnect?: () => void;
}

/** Conversions of the messages of a watch. */
export interface WatchReaders<Agent, Change> {
  readonly agent: (agent: AgentMessage) => Agent;
  /** Undefined for a message that no server of this contract sends. */
  readonly change: (change: AgentChange) => Change | undefined;
}

/** A stream that misses so many bookmarks is dead, although its connection may answer. */
const BOOKMARKS_MISSED = 3;
const BOOKMARK_MS = 10_000;
const LOOK_MS = 1_000;

/**
 * Watches agents until its signal aborts or its reader stops. It resumes from the last revision when the stream breaks, reaches its
 * longest age or the server drains, and from a new snapshot when the server no longer keeps the changes after that revision.
 *
 * @throws CallError if the server rejects the watch for good; RangeError for an invalid timeout
 */
export function watchThrough(clients: WatchClients, options: WatchOptions): AsyncGenerator<WatchEvent, void> {
  return watchAs(views, clients, options);
}

/** As `watchThrough`, with other conversions of agents and changes. @throws CallError */
export async function* watchAs<Agent extends { readonly id: bigint }, Change extends ChangeOf<Agent>>(
  readers: WatchReaders<Agent, Change>,
  clients: WatchClients,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<Agent, Change>, void> {
  const { from = "snapshot", signal = new AbortController().signal, timeoutMs = CALL_TIMEOUT_MS } = options;
  checkTimeout(timeoutMs);
  const retry = createRetryPause();
  let revision = from === "snapshot" ? undefined : from;
  let because: SnapshotCause = "started";
  while (!signal.aborted) {
    const snapshot = revision === undefined ? new Map<bigint, Agent>() : undefined;
    let wasReceiving = false;
    let error: CallError | undefined;
    try {
      for await (const message of messages(clients, options, revision, signal)) {
        retry.reset();
        wasReceiving = true;
        if (revision === undefined) {
          addTo(snapshot, message, readers);
          if (message.bookmark?.snapshotComplete !== true) continue;
          revision = message.revision;
          yield { kind: "snapshot", because, agents: [...(snapshot?.values() ?? [])], revision };
          snapshot?.clear();
        } else {
          revision = message.revision;
          yield* eventsOf(message, readers);
        }
      }
    } catch (thrown) {
      error = callErrorOf(thrown);
    }
    if (signal.aborted) return;
    // A stream that worked may work again, for example with a newer token.
    if (error?.permanent === true && !wasReceiving) throw error;
    if (error?.code === "OUT_OF_RANGE") {
      // Compacted, lost in a restore, or of another database: each needs a snapshot.
      revision = undefined;
      because = error.reason === "REVISION_COMPACTED" ? "compacted" : "history_lost";
    }
    clients.reconnect?.();
    const retryInMs = retry.next(error?.retryAfterMs);
    yield { kind: "interrupted", error, retryInMs };
    await pause(retryInMs, signal);
  }
}

/** The messages of one stream. Ends a stream that is silent for too long, also after the machine slept. */
async function* messages(
  { agents }: WatchClients,
  { filter = {}, conflate = false, bookmarkMs = BOOKMARK_MS, timeoutMs = CALL_TIMEOUT_MS }: WatchOptions,
  afterRevision: bigint | undefined,
  signal: AbortSignal,
): AsyncGenerator<WatchAgentsResponse, void> {
  const silence = new AbortController();
  const request = {
    filter: filterMessage(filter),
    conflate,
    bookmarkInterval: durationOf(bookmarkMs),
    ...(afterRevision === undefined ? {} : { afterRevision }),
  };
  const stream = agents.watchAgents(request, { signal: AbortSignal.any([signal, silence.signal]) });
  const reader = stream[Symbol.asyncIterator]();
  // Only the wait for the server counts, not the time that the consumer takes.
  let waitingSince: Moment | undefined;
  // The server sends the first message at once.
  let mostMs = timeoutMs === 0 ? BOOKMARKS_MISSED * bookmarkMs : timeoutMs;
  const look = setInterval(
    () => {
      if (waitingSince === undefined || msSince(waitingSince) <= mostMs) return;
      silence.abort(new ConnectError(`the service sent nothing for ${mostMs} ms`, Code.DeadlineExceeded));
    },
    Math.min(LOOK_MS, mostMs),
  );
  try {
    for (;;) {
      waitingSince = currentMoment();
      const next = await reader.next();
      waitingSince = undefined;
      if (next.done === true) return;
      mostMs = BOOKMARKS_MISSED * bookmarkMs;
      yield next.value;
    }
  } finally {
    clearInterval(look);
    silence.abort();
  }
}

interface ChangeOf<Agent> {
  readonly passes: boolean;
  readonly agent: Agent;
}

function addTo<Agent extends { readonly id: bigint }>(
  snapshot: Map<bigint, Agent> | undefined,
  { snapshotAgents, changes }: WatchAgentsResponse,
  { agent, change: read }: WatchReaders<Agent, ChangeOf<Agent>>,
): void {
  for (const message of snapshotAgents) snapshot?.set(message.id, agent(message));
  for (const change of changes.map(read)) {
    if (change?.passes === true) snapshot?.set(change.agent.id, change.agent);
    else if (change !== undefined) snapshot?.delete(change.agent.id);
  }
}

function* eventsOf<Agent, Change>(
  { revision, changes, bookmark }: WatchAgentsResponse,
  { change: read }: WatchReaders<Agent, Change>,
): Generator<WatchEvent<Agent, Change>> {
  if (changes.length > 0) {
    yield { kind: "changes", changes: changes.map(read).filter((change) => change !== undefined), revision };
  }
  if (bookmark !== undefined) yield { kind: "bookmark", revision };
}

/** The filter as a message of the contract. */
export function filterMessage({ agentIds = [], userIds = [], clawIdentifiers = [], statuses = [] }: AgentFilter) {
  return {
    agentIds: [...agentIds],
    userIds: [...userIds],
    clawIdentifiers: [...clawIdentifiers],
    statuses: statuses.map((status) => STATUS_VALUES[status]),
  };
}
