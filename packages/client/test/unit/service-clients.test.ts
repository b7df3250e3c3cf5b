import { Code, ConnectError, createClient, createRouterTransport, type Transport } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../../../../gen/client/google/rpc/error_details_pb.ts";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Health } from "../../../../gen/health/v1/health_pb.ts";
import { CallError } from "../../src/connection/call-error.ts";
import { createServiceClients } from "../../src/connection/node-clients.ts";
import { typedTransport } from "../../src/connection/routes.ts";
import { type ConnectedClients, clientsOnRoutes } from "../../src/connection/service-clients.ts";

/** A replica that returns its own name, and records its callers. */
function replica(
  name: string,
  tokens: (string | null)[] = [],
  check: () => object | Promise<object> = () => ({}),
): Transport {
  return createRouterTransport(({ service }) => {
    service(AgentService, {
      getAgent(_, { requestHeader }) {
        tokens.push(requestHeader.get("authorization"));
        return { agent: { agentId: name } };
      },
    });
    service(Health, { check });
  });
}

const ask = async ({ agents }: ConnectedClients): Promise<string | undefined> =>
  (await agents.getAgent({ key: { case: "agentId", value: "a" } })).agent?.agentId;

describe("service clients", () => {
  it("use one route until reconnect, then the next, and the first again after the last", async () => {
    const abort = vi.fn();
    const clients = clientsOnRoutes(["a", "b", "c"].map((name) => ({ transport: replica(name), abort })));
    const seen: (string | undefined)[] = [];
    for (let turn = 0; turn < 4; turn += 1) {
      seen.push(await ask(clients));
      expect(await ask(clients)).toBe(seen.at(-1));
      clients.reconnect();
    }
    expect(new Set(seen.slice(0, 3))).toEqual(new Set(["a", "b", "c"]));
    expect(seen[3]).toBe(seen[0]);
    expect(abort).toHaveBeenCalledTimes(4);
    clients.close();
    expect(abort).toHaveBeenCalledTimes(7);
  });

  it("send the current token with every call", async () => {
    const tokens: (string | null)[] = [];
    let token = "first";
    const clients = createServiceClients({ transport: replica("a", tokens), token: async () => token });
    await ask(clients);
    token = "second";
    await ask(clients);
    await ask(createServiceClients({ transport: replica("a", tokens), token: "fixed" }));
    await ask(createServiceClients({ transport: replica("a", tokens) }));
    expect(tokens).toEqual(["Bearer first", "Bearer second", "Bearer fixed", null]);
  });

  it("treat an error response as an answer, and silence as none", async () => {
    const refusing = (): never => {
      throw new ConnectError("no", Code.PermissionDenied);
    };
    const answers = async (check: () => object | Promise<object>) =>
      createServiceClients({ transport: replica("a", [], check) }).isAnswered(50);
    expect(await answers(() => ({}))).toBe(true);
    expect(await answers(refusing)).toBe(true);
    expect(await answers(() => new Promise<never>(() => undefined))).toBe(false);
  });

  it("reject each failed call with a CallError, unary calls and streams", async () => {
    const details = [
      { desc: ErrorInfoSchema, value: { reason: "AGENT_EXHAUSTED", metadata: { recoveryAt: "2026-01-01T00:00:00Z" } } },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 2n } } },
    ];
    const refuse = (): never => {
      throw new ConnectError("out of quota", Code.FailedPrecondition, undefined, details);
    };
    const transport = createRouterTransport(({ service }) => {
      service(AgentService, {
        getAgent: refuse,
        async *watchAgents() {
          yield await Promise.resolve({ revision: 1n });
          refuse();
        },
        // biome-ignore lint/correctness/useYield: it fails before its first response.
        async *heartbeat() {
          refuse();
        },
      });
    });
    const { agents } = createServiceClients({ transport });
    const watching = async () => {
      for await (const message of agents.watchAgents({})) void message;
    };
    const beating = async () => {
      for await (const message of agents.heartbeat((async function* () {})())) void message;
    };
    for (const call of [() => agents.getAgent({}), watching, beating]) {
      const error = await call().then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(CallError);
      expect(error).toMatchObject({
        code: "FAILED_PRECONDITION",
        reason: "AGENT_EXHAUSTED",
        metadata: { recoveryAt: "2026-01-01T00:00:00Z" },
        retryAfterMs: 2_000,
        message: "out of quota",
        permanent: false,
      });
    }
  });

  it("reject what a token function throws, and a lost network, with a CallError", async () => {
    const token = (): never => {
      throw new Error("the vault is sealed");
    };
    await expect(ask(createServiceClients({ transport: replica("a"), token }))).rejects.toMatchObject({
      name: "CallError",
      code: "UNAVAILABLE",
      reason: undefined,
      metadata: {},
      message: "the vault is sealed",
    });
    await expect(ask(createServiceClients({ address: "127.0.0.1:1" }))).rejects.toMatchObject({
      name: "CallError",
      code: "UNAVAILABLE",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  it("give a unary call a deadline, which the call can change", async () => {
    const transport = createRouterTransport(({ service }) => {
      service(AgentService, {
        getAgent: (_, { signal }) =>
          new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      });
    });
    const { agents } = createServiceClients({ transport, timeoutMs: 30 });
    const late = { code: "DEADLINE_EXCEEDED", message: "the service did not respond within 30 ms" };
    await expect(agents.getAgent({})).rejects.toMatchObject(late);
    await expect(agents.getAgent({}, { timeoutMs: 40 })).rejects.toMatchObject({
      ...late,
      message: "the service did not respond within 40 ms",
    });
    const stop = new AbortController();
    const unlimited = createServiceClients({ transport, timeoutMs: 0 }).agents.getAgent({}, { signal: stop.signal });
    await expect(agents.getAgent({})).rejects.toMatchObject(late);
    stop.abort(new Error("enough"));
    await expect(unlimited).rejects.toMatchObject({ name: "CallError", message: "enough" });
    expect(() => createServiceClients({ transport, timeoutMs: -1 })).toThrow("timeoutMs: -1 is out of range");
  });

  it("of Connect are typed by their transport, with the token and a deadline", async () => {
    const tokens: (string | null)[] = [];
    const agents = createClient(AgentService, typedTransport(replica("a", tokens), { token: "secret" }));
    await agents.getAgent({});
    expect(tokens).toEqual(["Bearer secret"]);
    await expect(agents.getFleet({})).rejects.toMatchObject({ name: "CallError", code: "UNIMPLEMENTED", metadata: {} });
    expect(() => typedTransport(replica("a"), { timeoutMs: Number.NaN })).toThrow(RangeError);
  });

  it("require a transport", () => {
    expect(() => createServiceClients({})).toThrow(RangeError);
    expect(() => createServiceClients({ addresses: [] })).toThrow(RangeError);
  });
});
