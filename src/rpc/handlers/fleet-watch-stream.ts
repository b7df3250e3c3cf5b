import type { ServiceImpl } from "@connectrpc/connect";
import { durationOf } from "../../../common/contract/timestamps.ts";
import type { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { DEFAULT_BOOKMARK_MS, durationMs } from "../../domain/validation.ts";
import { peerKey } from "../callers/call-values.ts";
import { brakeMessage } from "../convert/agent.ts";
import { clawFleets, statusCounts } from "../convert/fleet.ts";
import { filterOf } from "../convert/request.ts";
import type { FleetWatches, Heartbeats } from "./backend.ts";
import { fleetWatchesFor } from "./scoped-backend.ts";

/** Implements `WatchFleet`. `pace`: the present pace of heartbeats. */
export function createFleetWatchStream(
  watches: FleetWatches,
  pace: Heartbeats["pace"],
): ServiceImpl<typeof AgentService>["watchFleet"] {
  return async function* watchFleet({ filter, bookmarkInterval }, context) {
    const { signal } = context;
    const bookmarkMs = bookmarkInterval === undefined ? DEFAULT_BOOKMARK_MS : durationMs(bookmarkInterval);
    const query = { filter: filterOf(filter), bookmarkMs };
    const messages = fleetWatchesFor(watches, context).watch(query, signal, context.values.get(peerKey));
    for await (const { revision, all, claws, brake } of messages) {
      const { intervalMs, leaseMs } = pace();
      yield {
        revision,
        statuses: statusCounts(all),
        claws: clawFleets(claws),
        brake: brake && brakeMessage(brake),
        nextHeartbeatIn: durationOf(intervalMs),
        leaseTtl: durationOf(leaseMs),
      };
    }
    signal.throwIfAborted();
  };
}
