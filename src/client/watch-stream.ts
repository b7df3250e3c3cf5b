import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AgentFilterSchema, WatchAgentsResponse } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type CallError, callErrorOf } from "./call-error.ts";
import { pause, RetryPause } from "./retry-pause.ts";
import type { ServiceClients } from "./transport.ts";
import { type AgentView, agentView, type ChangeView, changeView } from "./views.ts";
import { durationOf } from "./wire-words.ts";

/** What a watch tells, in order. */
export type WatchEvent =
  /** A snapshot begins: what was known before is void. */
  | { readonly kind: "snapshot" }
  /** Agents of the snapshot. */
  | { readonly kind: "agents"; readonly agents: readonly AgentView[] }
  /** Each change exactly once, in the order of revisions; in a snapshot those made meanwhile. */
  | { readonly kind: "changes"; readonly changes: readonly ChangeView[] }
  /** How far the watch has come. */
  | { readonly kind: "bookmark"; readonly revision: bigint; readonly snapshotComplete: boolean }
  /** The stream is cut off and will go on from where it was. */
  | { readonly kind: "interrupted"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface WatchOptions {
  readonly clients: Pick<ServiceClients, "agents">;
  /** Which agents; without it every one. */
  readonly filter?: MessageInitShape<typeof AgentFilterSchema>;
  /** Where to resume; without it from a snapshot. */
  readonly afterRevision?: bigint;
  /** The longest time in milliseconds without a message, 1 s to 5 min. Default: 10 s. */
  readonly bookmarkMs?: number;
  /** Ends the watch, quietly. */
  readonly signal: AbortSignal;
}

/** A stream that misses so many bookmarks is dead, whatever the connection says. */
const BOOKMARKS_MISSED = 3;

/**
 * Watches agents for as long as the signal lets it: goes on from the last revision when the stream is cut off, and from
 * a new snapshot when the server no longer keeps what came after that.
 *
 * @throws CallError when the server refuses the watch in a way that stays.
 */
export async function* watchAgents(options: WatchOptions): AsyncGenerator<WatchEvent, void> {
  const { signal, bookmarkMs = 10_000 } = options;
  const retry = new RetryPause();
  let revision = options.afterRevision;
  while (!signal.aborted) {
    if (revision === undefined) yield { kind: "snapshot" };
    let error: CallError | undefined;
    try {
      for await (const message of messages(options, revision, bookmarkMs)) {
        retry.reset();
        yield* eventsOf(message);
        // 0 until the snapshot is complete.
        if (message.revision > 0n) revision = message.revision;
      }
    } catch (thrown) {
      error = callErrorOf(thrown);
    }
    if (signal.aborted) return;
    if (error?.hopeless === true) throw error;
    // Compacted, lost in a restore, or another database's: a snapshot is right in each case, and at once.
    if (error?.code === "OUT_OF_RANGE") revision = undefined;
    const retryInMs = retry.next(error?.retryAfterMs);
    yield { kind: "interrupted", error, retryInMs };
    await pause(retryInMs, signal);
  }
}

/** The messages of one stream. Ends it when it is silent for too long. */
async function* messages(
  { clients, filter = {}, signal }: WatchOptions,
  afterRevision: bigint | undefined,
  bookmarkMs: number,
): AsyncGenerator<WatchAgentsResponse, void> {
  const silence = new AbortController();
  const request = {
    filter,
    bookmarkInterval: durationOf(bookmarkMs),
    ...(afterRevision === undefined ? {} : { afterRevision }),
  };
  const stream = clients.agents.watchAgents(request, { signal: AbortSignal.any([signal, silence.signal]) });
  const reader = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      // Only waiting counts: a consumer may take its time.
      const timer = setTimeout(() => silence.abort(), BOOKMARKS_MISSED * bookmarkMs);
      const next = await reader.next().finally(() => clearTimeout(timer));
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    silence.abort();
  }
}

function* eventsOf({ revision, snapshotAgents, changes, bookmark }: WatchAgentsResponse): Generator<WatchEvent> {
  if (snapshotAgents.length > 0) yield { kind: "agents", agents: snapshotAgents.map(agentView) };
  if (changes.length > 0) {
    yield { kind: "changes", changes: changes.map(changeView).filter((change) => change !== undefined) };
  }
  if (bookmark !== undefined) yield { kind: "bookmark", revision, snapshotComplete: bookmark.snapshotComplete };
}
