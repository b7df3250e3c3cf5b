// What the service's browser entry of version 0.1 uses of the library beyond its public interface: like `internal`, and without Node.
export { exactViews } from "./views.ts";
export { cacheOf } from "./watch/agent-cache.ts";
export { watchClients } from "./watch/browser-watch.ts";
export { watchAs } from "./watch/watch-agents.ts";
