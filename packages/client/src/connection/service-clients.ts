import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../../gen/harborforge/agents/v1/user_service_pb.ts";
import { Health } from "../../../../gen/health/v1/health_pb.ts";
import { authorised, type Token } from "./token.ts";

/** Typed callers of the services that every program needs. */
export interface ServiceClients {
  readonly agents: Client<typeof AgentService>;
  readonly users: Client<typeof UserService>;
}

/** Callers that share one connection at a time. `close` ends it. */
export interface ConnectedClients extends ServiceClients, Disposable {
  readonly tokens: Client<typeof TokenService>;
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

/** A transport to one address. */
export interface Route {
  readonly transport: Transport;
  /** Closes its connection. Missing for transports of the caller. */
  abort?(why: string): void;
}

/** Callers that use one route until `reconnect`, and then the next one. */
export function clientsOnRoutes(routes: readonly Route[], token?: Token): ConnectedClients {
  const callers = routes.map(({ transport, abort }) => {
    const called = token === undefined ? transport : authorised(transport, token);
    return {
      agents: createClient(AgentService, called),
      users: createClient(UserService, called),
      tokens: createClient(TokenService, called),
      health: createClient(Health, called),
      abort,
    };
  });
  // A random first route: otherwise all processes with the same list would use its first address.
  let turn = Math.floor(Math.random() * callers.length);
  const current = () => {
    const caller = callers[turn];
    if (caller === undefined) throw new RangeError("No address is given. Give address, addresses or transport.");
    return caller;
  };
  current();
  const close = (): void => {
    for (const { abort } of callers) abort?.("the connection was closed");
  };
  return {
    get agents() {
      return current().agents;
    },
    get users() {
      return current().users;
    },
    get tokens() {
      return current().tokens;
    },
    isAnswered: (withinMs) => answersWithin(current().health, withinMs),
    reconnect() {
      current().abort?.("the connection was replaced");
      turn = (turn + 1) % callers.length;
    },
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

/** The routes of transports of the caller. */
export function routesOf(transport: Transport | readonly Transport[]): readonly Route[] {
  return (Array.isArray(transport) ? transport : [transport]).map((one: Transport) => ({ transport: one }));
}
