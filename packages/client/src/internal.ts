// What the service's own commands use of the library, beyond its public interface. Not for other programs: these exports change
// from release to release without notice. The service depends on exactly one version of this package.
export { answered, callErrorOf } from "./connection/call-error.ts";
export { baseUrlOf } from "./connection/node-clients.ts";
export { createRetryPause } from "./connection/retry-pause.ts";
export { currentMoment, type Moment, msSince } from "./elapsed.ts";
export type { Report } from "./heartbeats/beat-queue.ts";
export { HeartbeatStream } from "./heartbeats/heartbeat-stream.ts";
export { agentView, type ClawMessageView, transitionView } from "./views.ts";
export { filterMessage, type WatchClients, watchAs, watchThrough } from "./watch/watch-agents.ts";
