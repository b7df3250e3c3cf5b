import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { AgentService } from "../../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../../gen/client/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../../gen/client/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../../../gen/client/harborforge/agents/v1/wake_service_pb.ts";
import { Health } from "../../../../gen/client/health/v1/health_pb.ts";
import { type Route, Turns } from "./routes.ts";

/** Typed callers of the services that every program needs. Each call rejects with a CallError. */
export interface ServiceClients {
  readonly agents: Client<typeof AgentService>;
  readonly users: Client<typeof UserService>;
}

/** Callers that share one connection at a time. `close` ends it. */
export interface ConnectedClients extends ServiceClients, Disposable {
  readonly tokens: Client<typeof TokenService>;
  readonly wakes: Client<typeof WakeService>;
  /** Whether the server answers a health check within this time, with any status. The check needs no database. */
  isAnswered(withinMs: number): Promise<boolean>;
  /**
   * Closes the connection. Open calls end with `UNAVAILABLE`. The next call opens another connection, to the next address if there
   * are several.
   */
  reconnect(): void;
  /** Ends the connection and all open calls. May be called again. */
  close(): void;
}

/** Callers that use one route until `reconnect`, and then the next one. @throws RangeError without a route */
export function clientsOnRoutes(routes: readonly Route[]): ConnectedClients {
  const turns = new Turns(routes, (transport: Transport) => ({
    agents: createClient(AgentService, transport),
    users: createClient(UserService, transport),
    tokens: createClient(TokenService, transport),
    wakes: createClient(WakeService, transport),
    health: createClient(Health, transport),
  }));
  const close = (): void => turns.close();
  return {
    get agents() {
      return turns.current.agents;
    },
    get users() {
      return turns.current.users;
    },
    get tokens() {
      return turns.current.tokens;
    },
    get wakes() {
      return turns.current.wakes;
    },
    isAnswered: (withinMs) => answersWithin(turns.current.health, withinMs),
    reconnect: () => turns.next(),
    close,
    [Symbol.dispose]: close,
  };
}

/** Uses its own timer, since a transport of the caller may ignore deadlines. */
function answersWithin(health: Client<typeof Health>, withinMs: number): Promise<boolean> {
  const stop = new AbortController();
  return new Promise((resolve) => {
    const tooLate = setTimeout(() => {
      resolve(false);
      stop.abort();
    }, withinMs);
    const answered = (): void => {
      clearTimeout(tooLate);
      resolve(true);
    };
    // An error is an answer, too.
    health.check({}, { signal: stop.signal }).then(answered, answered);
  });
}
