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

/** Callers on one connection at a time, which ends with them. */
export interface ConnectedClients extends ServiceClients, Disposable {
  readonly tokens: Client<typeof TokenService>;
  /** Whether the other end of the connection answers at all, whatever it says: a question that needs no database. */
  isAnswered(withinMs: number): Promise<boolean>;
  /**
   * Gives the connection up: calls under way on it end with `UNAVAILABLE`, and the next one opens another, to the next
   * address where there are several.
   */
  reconnect(): void;
  /** Ends the connection and every call that is under way on it. May be repeated. */
  close(): void;
}

/** One way to the service. */
export interface Route {
  readonly transport: Transport;
  /** Breaks its connection. Missing where whoever made the transport keeps that to himself. */
  abort?(why: string): void;
}

/** Callers that go one way until they are told to take the next. */
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
  // Not always the same first: many processes with one list would all go to its first address.
  let turn = Math.floor(Math.random() * callers.length);
  const current = () => {
    const caller = callers[turn];
    if (caller === undefined) throw new RangeError("no address and no transport was given");
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
      current().abort?.("the connection was given up");
      turn = (turn + 1) % callers.length;
    },
    close,
    [Symbol.dispose]: close,
  };
}

/** By a timer of its own: whether a transport keeps deadlines is for whoever made it. */
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
    // A refusal is an answer, too.
    health.check({}, { signal: stop.signal }).then(answered, answered);
  });
}

/** A transport that somebody made, or several that lead to different addresses. */
export function routesOf(transport: Transport | readonly Transport[]): readonly Route[] {
  return (Array.isArray(transport) ? transport : [transport]).map((one: Transport) => ({ transport: one }));
}
