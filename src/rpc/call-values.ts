import { type ContextKey, createContextKey } from "@connectrpc/connect";

/**
 * Who calls, as transitions record it (`service:…`, `agent:…`, `user:…`). While nobody has to show credentials, it is an
 * unnamed service; where an agent speaks for itself the handler knows better.
 */
export const actorKey: ContextKey<string> = createContextKey("service:anonymous", { description: "actor" });
