import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { Health } from "../../gen/health/v1/health_pb.ts";

/** Typed callers of both services. */
export interface ServiceClients {
  readonly agents: Client<typeof AgentService>;
  readonly users: Client<typeof UserService>;
}

/** Callers on one connection, which ends with them. */
export interface ConnectedClients extends ServiceClients, Disposable {
  /** Whether the other end of the connection answers at all, whatever it says: a question that needs no database. */
  isAnswered(withinMs: number): Promise<boolean>;
  /** Gives the connection up: calls under way on it end with `UNAVAILABLE`, and the next one opens another. */
  reconnect(): void;
  /** Ends the connection and every call that is under way on it. May be repeated. */
  close(): void;
}

/** A connection that says nothing for so long is asked whether it is still there. */
const PING_AFTER_MS = 10_000;
const PING_PATIENCE_MS = 5_000;

/**
 * Callers of the gRPC door. Nothing is connected before the first call, and a lost connection is opened anew by the
 * next one.
 *
 * @param address as `baseUrlOf` takes it
 * @throws RangeError for any other
 */
export function createServiceClients({ address }: { readonly address: string }): ConnectedClients {
  const baseUrl = baseUrlOf(address);
  if (baseUrl === undefined) throw new RangeError(`not the address of a service: ${address}`);
  const connection = new Http2SessionManager(baseUrl, {
    pingIntervalMs: PING_AFTER_MS,
    pingTimeoutMs: PING_PATIENCE_MS,
  });
  const transport = createGrpcTransport({ baseUrl, sessionManager: connection });
  const health = createClient(Health, transport);
  // Never without a reason: a cancelled connection counts as one that was not opened yet, and a call that waited for it at
  // that very moment then asks for ever, in a loop that lets nothing else run.
  const giveUp = (why: string): void => connection.abort(new ConnectError(why, Code.Unavailable));
  const close = (): void => giveUp("the connection was closed");
  return {
    agents: createClient(AgentService, transport),
    users: createClient(UserService, transport),
    isAnswered: (withinMs) =>
      health.check({}, { timeoutMs: withinMs }).then(
        () => true,
        (error: unknown) => ConnectError.from(error).code !== Code.DeadlineExceeded,
      ),
    reconnect: () => giveUp("the connection was given up"),
    close,
    [Symbol.dispose]: close,
  };
}

/** The URL meant by `http://host:port`, `https://host:port` or `host:port`. Undefined for what names no such place. */
export function baseUrlOf(address: string): string | undefined {
  const url = URL.parse(/^[a-z]+:\/\//i.test(address) ? address : `http://${address}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined;
  const plain = url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  return plain && url.pathname === "/" ? url.origin : undefined;
}
