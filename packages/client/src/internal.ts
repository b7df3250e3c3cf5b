// What the service's own commands, and its entries of version 0.1, use of the library beyond its public interface. Not for other
// programs: these exports change from release to release without notice. The service depends on exactly one version of this package.
export { callErrorOf } from "./connection/call-error.ts";
export { baseUrlOf, createPlainClients } from "./connection/node-clients.ts";
export { createRetryPause } from "./connection/retry-pause.ts";
export { currentMoment, type Moment, msSince } from "./elapsed.ts";
export type { Report } from "./heartbeats/beat-queue.ts";
export { HeartbeatStream } from "./heartbeats/heartbeat-stream.ts";
export { type ClawMessageView, exactViews } from "./views.ts";
export { cacheOf } from "./watch/agent-cache.ts";
export { closingAfter } from "./watch/node-watch.ts";
export { filterMessage, type WatchClients, watchAs, watchThrough } from "./watch/watch-agents.ts";
