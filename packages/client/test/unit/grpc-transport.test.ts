import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http2";
import { Code, ConnectError, createClient, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { ErrorInfoSchema } from "../../../../gen/client/google/rpc/error_details_pb.ts";
import { AgentService } from "../../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import { portOf } from "../../../../test/support/fault-proxy.ts";
import { PATIENCE } from "../../../../test/support/until.ts";
import { createGrpcTransport } from "../../src/connection/grpc-transport.ts";
import { ServiceConnection } from "../../src/connection/service-connection.ts";

/** A server of Connect's own, and a caller of it over this transport. */
async function start(agents: Partial<ServiceImpl<typeof AgentService>>) {
  const headers: IncomingHttpHeaders[] = [];
  const adapter = connectNodeAdapter({ routes: ({ service }) => service(AgentService, agents), compressMinBytes: 1 });
  const server = createServer((request, response) => {
    headers.push(request.headers);
    adapter(request, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const connection = new ServiceConnection(`http://127.0.0.1:${portOf(server)}`);
  onTestFinished(() => {
    connection.abort(new ConnectError("the test is over", Code.Unavailable));
    server.close();
  });
  return { client: createClient(AgentService, createGrpcTransport(connection)), headers };
}

const failure = async (call: Promise<unknown>): Promise<ConnectError> => {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof ConnectError)) throw new Error(`no ConnectError: ${String(thrown)}`);
  return thrown;
};

describe("gRPC over the connection of the library", () => {
  it("reads compressed responses", async () => {
    const { client, headers } = await start({
      getAgent: ({ key }) => ({ agent: { agentId: String(key.value).repeat(10) } }),
    });
    const { agent } = await client.getAgent({ key: { case: "agentId", value: "again and " } });
    expect(agent?.agentId).toBe("again and ".repeat(10));
    expect(headers).toMatchObject([{ "content-type": "application/grpc+proto", "grpc-accept-encoding": "gzip" }]);
  });

  it("carries streams in both directions at once", async () => {
    const { client } = await start({
      async *heartbeat(requests) {
        yield { acknowledgedSequence: 0n };
        for await (const { sequence } of requests) yield { acknowledgedSequence: sequence };
      },
    });
    const acknowledged: bigint[] = [];
    let next = Promise.withResolvers<bigint>();
    const requests = (async function* () {
      while (acknowledged.length < 3) {
        const sequence = await next.promise;
        next = Promise.withResolvers();
        yield { sequence };
      }
    })();
    for await (const { acknowledgedSequence } of client.heartbeat(requests)) {
      acknowledged.push(acknowledgedSequence);
      next.resolve(acknowledgedSequence + 1n);
    }
    expect(acknowledged).toEqual([0n, 1n, 2n, 3n]);
  });

  it("passes on errors with their details, also after messages", async () => {
    const refuse = (): never => {
      const details = [{ desc: ErrorInfoSchema, value: { reason: "AGENT_OFFLINE" } }];
      throw new ConnectError("it is offline", Code.FailedPrecondition, undefined, details);
    };
    const { client } = await start({
      getAgent: refuse,
      async *watchAgents() {
        yield { revision: 1n };
        yield refuse();
      },
    });
    const revisions: bigint[] = [];
    const watching = (async () => {
      for await (const { revision } of client.watchAgents({})) revisions.push(revision);
    })();
    for (const call of [client.getAgent({}), watching]) {
      const error = await failure(call);
      expect([error.code, error.rawMessage]).toEqual([Code.FailedPrecondition, "it is offline"]);
      expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "AGENT_OFFLINE" }]);
    }
    expect(revisions).toEqual([1n]);
  });

  it("tells the server when a call is cancelled, and when its deadline is over", async () => {
    const aborted = vi.fn();
    const { client } = await start({
      getAgent: (_, { signal }) =>
        new Promise<never>((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            aborted();
            reject(signal.reason);
          });
        }),
    });
    const stop = new AbortController();
    const cancelled = failure(client.getAgent({}, { signal: stop.signal }));
    const late = failure(client.getAgent({}, { timeoutMs: 50 }));
    expect((await late).code).toBe(Code.DeadlineExceeded);
    stop.abort();
    expect((await cancelled).code).toBe(Code.Canceled);
    await vi.waitUntil(() => aborted.mock.calls.length === 2, PATIENCE);
  });

  it("ends a call by its deadline while the connection opens", async () => {
    const connection = {
      authority: "http://127.0.0.1:1",
      request: () => new Promise<never>(() => undefined),
      noteRead: () => undefined,
    };
    const client = createClient(AgentService, createGrpcTransport(connection));
    expect((await failure(client.getAgent({}, { timeoutMs: 20 }))).code).toBe(Code.DeadlineExceeded);
  });

  it("makes a lost connection UNAVAILABLE", async () => {
    const server = createServer((request) => request.socket.destroy());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const connection = new ServiceConnection(`http://127.0.0.1:${portOf(server)}`);
    const client = createClient(AgentService, createGrpcTransport(connection));
    expect((await failure(client.getAgent({}))).code).toBe(Code.Unavailable);
  });
});
