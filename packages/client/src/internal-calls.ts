// As internal.ts, for commands that make a few calls: without heartbeats, workers and providers, which would take a third of the
// start of such a command.
export { CallError, callErrorOf } from "./connection/call-error.ts";
export { baseUrlOf, createServiceClients } from "./connection/node-clients.ts";
export type { ConnectedClients } from "./connection/service-clients.ts";
export { exactViews } from "./views.ts";
export { filterMessage, type WatchClients, watchAs } from "./watch/watch-agents.ts";
