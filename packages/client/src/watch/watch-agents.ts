import type { Agent as AgentMessage } from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import type { AgentChange, WatchAgentsResponse } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { STATUS_VALUES } from "../../../../src/contract/enums.ts";
import { durationOf } from "../../../../src/contract/timestamps.ts";
import type { AgentStatus } from "../../../../src/contract/words.ts";
import { pause } from "../../../../src/scheduling/timers.ts";
import { type CallError, callErrorOf } from "../connection/call-error.ts";
import { createRetryPause } from "../connection/retry-pause.ts";
import type { ConnectedClients } from "../connection/service-clients.ts";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";
import { type AgentView, agentView, type ChangeView, changeView } from "../views.ts";

/** Says which agents: within a field any value counts, across fields all have to. Each list holds up to 1,000 values. */
export interface AgentFilter {
  readonly agentIds?: readonly string[];
  readonly userIds?: readonly bigint[];
  readonly clawIdentifiers?: readonly string[];
  readonly statuses?: readonly AgentStatus[];
}

/**
 * Why a watch begins with a snapshot: it was asked to; what came after its last revision is no longer kept; or the
 * service lost that part of its history, in a restore or a failover, so that what was told may never have been.
 */
export type SnapshotCause = "started" | "compacted" | "history_lost";

/** What a watch tells, in order. `revision` is where to go on after having dealt with the event. */
export type WatchEvent<Agent = AgentView, Change = ChangeView> =
  /** All agents that pass the filter, as of the revision. What was known before is void. */
  | {
      readonly kind: "snapshot";
      readonly because: SnapshotCause;
      readonly agents: readonly Agent[];
      readonly revision: bigint;
    }
  /** Each change exactly once, in the order of revisions. */
  | { readonly kind: "changes"; readonly changes: readonly Change[]; readonly revision: bigint }
  /** How far the watch has come, even where nothing happened. */
  | { readonly kind: "bookmark"; readonly revision: bigint }
  /** The stream is cut off and will go on from where it was. What is known is getting old. */
  | { readonly kind: "interrupted"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface WatchOptions {
  /** Which agents. Default: every one. */
  readonly filter?: AgentFilter;
  /** Where to begin: with a snapshot, or right after a revision that an earlier watch with the same filter came to. */
  readonly from?: bigint | "snapshot";
  /** Whether changes of one agent may be merged while this watcher is slow. Default: no. */
  readonly conflate?: boolean;
  /** The longest time in milliseconds without a message, 1 s to 5 min. Default: 10 s. */
  readonly bookmarkMs?: number;
  /** Ends the watch, quietly and at once. */
  readonly signal?: AbortSignal;
}

/** What a watch calls through. Where these can open another connection, it does so when its own is cut off. */
export type WatchClients = Pick<ConnectedClients, "agents"> & Partial<Pick<ConnectedClients, "reconnect">>;

/** What is made of the messages of a watch. */
export interface WatchReaders<Agent, Change> {
  readonly agent: (agent: AgentMessage) => Agent;
  /** Undefined for what no server of this contract sends. */
  readonly change: (change: AgentChange) => Change | undefined;
}

const VIEWS: WatchReaders<AgentView, ChangeView> = { agent: agentView, change: changeView };

/** A stream that misses so many bookmarks is dead, whatever the connection says. */
const BOOKMARKS_MISSED = 3;
const BOOKMARK_MS = 10_000;
const LOOK_MS = 1_000;

/**
 * Watches agents until its signal, or whoever reads it, ends it: goes on from the last revision when the stream is cut
 * off, grows old or is told to go elsewhere, and from a new snapshot when the server no longer keeps what came after.
 *
 * @throws CallError when the server refuses the watch in a way that stays.
 */
export function watchThrough(clients: WatchClients, options: WatchOptions): AsyncGenerator<WatchEvent, void> {
  return watchAs(VIEWS, clients, options);
}

/** As `watchThrough`, with agents and changes read in another way. @throws CallError */
export async function* watchAs<Agent extends { readonly id: bigint }, Change extends ChangeOf<Agent>>(
  readers: WatchReaders<Agent, Change>,
  clients: WatchClients,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<Agent, Change>, void> {
  const { from = "snapshot", signal = new AbortController().signal } = options;
  const retry = createRetryPause();
  let revision = from === "snapshot" ? undefined : from;
  let because: SnapshotCause = "started";
  while (!signal.aborted) {
    const snapshot = revision === undefined ? new Map<bigint, Agent>() : undefined;
    let heard = false;
    let error: CallError | undefined;
    try {
      for await (const message of messages(clients, options, revision, signal)) {
        retry.reset();
        heard = true;
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
    // What worked until now may work again: a token that ended, for example, where there is a newer one.
    if (error?.hopeless === true && !heard) throw error;
    if (error?.code === "OUT_OF_RANGE") {
      // Compacted, lost in a restore, or another database's: a snapshot is right in each case.
      revision = undefined;
      because = error.reason === "REVISION_COMPACTED" ? "compacted" : "history_lost";
    }
    clients.reconnect?.();
    const retryInMs = retry.next(error?.retryAfterMs);
    yield { kind: "interrupted", error, retryInMs };
    await pause(retryInMs, signal);
  }
}

/** The messages of one stream. Ends it when it is silent for too long, also where a machine slept meanwhile. */
async function* messages(
  { agents }: WatchClients,
  { filter = {}, conflate = false, bookmarkMs = BOOKMARK_MS }: WatchOptions,
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
  // Only waiting counts: a consumer may take its time.
  let waitingSince: Moment | undefined;
  const look = setInterval(() => {
    if (waitingSince !== undefined && msSince(waitingSince) > BOOKMARKS_MISSED * bookmarkMs) silence.abort();
  }, LOOK_MS);
  try {
    for (;;) {
      waitingSince = currentMoment();
      const next = await reader.next();
      waitingSince = undefined;
      if (next.done === true) return;
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

/** The contract's filter. */
export function filterMessage({ agentIds = [], userIds = [], clawIdentifiers = [], statuses = [] }: AgentFilter) {
  return {
    agentIds: [...agentIds],
    userIds: [...userIds],
    clawIdentifiers: [...clawIdentifiers],
    statuses: statuses.map((status) => STATUS_VALUES[status]),
  };
}
