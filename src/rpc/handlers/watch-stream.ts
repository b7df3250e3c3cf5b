import type { ServiceImpl } from "@connectrpc/connect";
import type { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { DEFAULT_BOOKMARK_MS, durationMs } from "../../domain/validation.ts";
import { peerKey } from "../callers/call-values.ts";
import { filterOf } from "../convert/request.ts";
import { createWatchEncoder } from "../convert/watch.ts";
import type { Watches, WatchQuery } from "./backend.ts";
import { watchesFor } from "./scoped-backend.ts";

/** Implements `WatchAgents`: encodes the messages of a watch. */
export function createWatchStream(watches: Watches): ServiceImpl<typeof AgentService>["watchAgents"] {
  return async function* watchAgents(request, context) {
    const { signal } = context;
    const { afterRevision, conflate } = request;
    const query: WatchQuery = {
      filter: filterOf(request.filter),
      afterRevision,
      conflate,
      bookmarkMs: request.bookmarkInterval === undefined ? DEFAULT_BOOKMARK_MS : durationMs(request.bookmarkInterval),
    };
    const encode = createWatchEncoder(query);
    const messages = watchesFor(watches, context).watch(query, signal, context.values.get(peerKey));
    for await (const message of messages) yield* encode(message);
    signal.throwIfAborted();
  };
}
