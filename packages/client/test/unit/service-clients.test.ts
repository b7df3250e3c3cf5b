import { Code, ConnectError, createRouterTransport, type Transport } from "@connectrpc/connect";
import { describe, expect, it, vi } from "vitest";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Health } from "../../../../gen/health/v1/health_pb.ts";
import { createServiceClients } from "../../src/connection/node-clients.ts";
import { clientsOnRoutes } from "../../src/connection/service-clients.ts";

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

const ask = async ({ agents }: ReturnType<typeof clientsOnRoutes>): Promise<string | undefined> =>
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

  it("require a transport", () => {
    expect(() => createServiceClients({})).toThrow(RangeError);
    expect(() => createServiceClients({ addresses: [] })).toThrow(RangeError);
  });
});
