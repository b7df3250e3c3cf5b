import {
  createHeartbeatClient,
  createServiceClients,
  type HeartbeatClientOptions,
  type HeartbeatWorkerEvent,
} from "harborforge-agents-client";
import { describe, expect, onTestFinished, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { unique, useService } from "../support/service.ts";
import { until } from "../support/until.ts";

const WITHIN_MS = 20_000;

describe("a worker that beats", () => {
  const service = useService();

  async function start(options: Partial<HeartbeatClientOptions> = {}) {
    const agentId = unique("agent");
    using clients = createServiceClients({ address: service().addresses.grpc });
    await clients.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
    const client = createHeartbeatClient({
      address: service().addresses.grpc,
      claw: "claw-1",
      worker: true,
      ...options,
    });
    onTestFinished(() => client.close({ withinMs: 0 }));
    const news: HeartbeatWorkerEvent[] = [];
    client.on("worker", (one) => news.push(one));
    const statusOf = async (): Promise<string> => {
      const rows = await service().query<{ status: string }>("SELECT status FROM agents WHERE agent_id = $1", agentId);
      return rows[0]?.status ?? "none";
    };
    return { client, agent: client.agent(agentId), agentId, news, statusOf };
  }

  test("gives handles the same outcomes, statuses, rejections and events as without it", async () => {
    const { client, agent, agentId } = await start();
    expect(await agent.busy()).toBe("applied");
    expect(agent.status).toBe("busy");
    const exhausted = agent.exhausted({ reason: "rate_limit", retryAfterMs: 60_000 });
    expect(await exhausted).toBe("applied");
    expect(agent).toMatchObject({ status: "exhausted", exhaustion: { reason: "rate_limit" } });
    const words = [agent.idle(), agent.onCall(), agent.busy()];
    expect((await Promise.all(words)).at(-1)).toBe("applied");
    const heard: string[] = [];
    agent.on("status", ({ status }) => heard.push(status));
    using clients = createServiceClients({ address: service().addresses.grpc });
    await clients.agents.updateAgentStatus({ agentId, status: AgentStatus.ON_CALL });
    await until("the handle hears of it", () => heard.includes("on_call"));
    const unknown = client.agent("nobody-knows-it");
    await expect(unknown.busy()).rejects.toMatchObject({ name: "ReportError", reason: "AGENT_NOT_FOUND" });
    expect(unknown.presence).toBe("refused");
    await using other = createHeartbeatClient({ address: service().addresses.grpc, claw: "claw-1" });
    await until("the other hears of it", () => other.agent(agentId).status === "on_call");
    expect(await other.agent(agentId).idle()).toBe("applied");
    await until("it is superseded", () => agent.presence === "superseded");
    await expect(agent.busy()).rejects.toMatchObject({ reason: "SESSION_SUPERSEDED" });
    agent.claim();
    expect(await agent.busy()).toBe("applied");
    expect(await agent.leave()).toBe("applied");
    expect(agent).toMatchObject({ presence: "left", status: "offline" });
  });

  test("is replaced when it ends by itself, and no report is lost", async () => {
    const url = new URL(
      `data:text/javascript,${encodeURIComponent(`
        import { parentPort } from "node:worker_threads";
        parentPort.on("message", ({ kind }) => { if (kind === "report") throw new Error("the worker is broken"); });
      `)}`,
    );
    const worker: { mainThreadTimeoutMs: number; url?: URL } = { mainThreadTimeoutMs: 60_000, url };
    const { agent, news, statusOf } = await start({ worker });
    const said = agent.busy();
    await until("it was replaced more than once", () => news.length >= 2);
    delete worker.url;
    expect(await said).toBe("applied");
    expect(await statusOf()).toBe("busy");
    expect(news[0]).toMatchObject({ state: "restarting", error: { message: "the worker is broken" } });
    expect(news[0]?.state === "restarting" && news[0].retryInMs).toBeGreaterThan(100);
  });

  /** A client behind a proxy, whose worker ends by an exception when `crash` is called. */
  async function startCrashing() {
    const { grpc } = service().addresses;
    const proxy = await FaultProxy.open(() => [Number(grpc.split(":").at(-1))]);
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    const channel = unique("crash");
    const url = new URL(
      `data:text/javascript,${encodeURIComponent(`
        const channel = new BroadcastChannel(${JSON.stringify(channel)});
        channel.onmessage = () => { throw new Error("crashed"); };
        channel.unref();
        await import(${JSON.stringify(new URL("../../packages/client/src/heartbeat-worker.ts", import.meta.url))});
      `)}`,
    );
    const started = await start({ address: proxy.address, worker: { url } });
    const crash = async (): Promise<void> => {
      using sender = Object.assign(new BroadcastChannel(channel), {
        [Symbol.dispose]: () => sender.close(),
      });
      sender.postMessage("now");
      await until("the worker is gone", () => started.news.some(({ state }) => state === "restarting"));
    };
    const other = createHeartbeatClient({ address: grpc, claw: "claw-1" });
    onTestFinished(() => other.close({ withinMs: 0 }));
    return { ...started, proxy, crash, other };
  }

  test("leaves its agent after a crash to the process that claimed it meanwhile", { timeout: 60_000 }, async () => {
    const { client, agent, agentId, proxy, crash, other } = await startCrashing();
    await new Promise<void>((resolve) => client.on("connection", ({ state }) => state === "connected" && resolve()));
    // The report is on its way before the first response to a beat.
    proxy.stall();
    const said = agent.busy();
    await new Promise((resolve) => setTimeout(resolve, 200));
    proxy.resume();
    expect(await said).toBe("applied");
    proxy.cut();
    await crash();
    expect(await other.agent(agentId).onCall()).toBe("applied");
    proxy.mend();
    await until("it is told", () => agent.presence === "superseded", WITHIN_MS);
    expect(other.agent(agentId).presence).toBe("beating");
  });

  test("keeps a claim that was made while it restarted", { timeout: 60_000 }, async () => {
    const { agent, agentId, proxy, crash, other } = await startCrashing();
    expect(await agent.busy()).toBe("applied");
    expect(await other.agent(agentId).idle()).toBe("applied");
    await until("it is told", () => agent.presence === "superseded");
    proxy.cut();
    await crash();
    agent.claim();
    const said = agent.onCall();
    proxy.mend();
    expect(await said).toBe("applied");
    await until("the other is told", () => other.agent(agentId).presence === "superseded");
    expect(agent.presence).toBe("beating");
  });

  test("that cannot start is an event, and the client ends as usual", async () => {
    const url = new URL("./there-is-no-such-file.js", import.meta.url);
    const { client, agent, news } = await start({ worker: { url } });
    const said = agent.busy();
    await until("it is told", () => news.length >= 2);
    expect(news[0]).toMatchObject({ state: "restarting" });
    await client.close({ withinMs: 100 });
    await expect(said).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  test("requests tokens from the main thread, and passes on errors of the function", async () => {
    let asked = 0;
    const token = async (): Promise<string> => {
      asked += 1;
      if (asked === 1) throw new Error("the vault is closed");
      return "secret";
    };
    const { client, agent } = await start({ token });
    const errors: string[] = [];
    client.on("connection", (connection) => {
      if (connection.state === "waiting") errors.push(connection.error?.message ?? "");
    });
    expect(await agent.busy()).toBe("applied");
    expect(errors).toEqual(["the vault is closed"]);
    expect(asked).toBeGreaterThan(1);
  });

  test("ends with the client, whether agents say goodbye or not", async () => {
    const { client, agent, statusOf } = await start();
    await agent.busy();
    await client.close({ goodbye: false });
    expect(await statusOf()).toBe("busy");
    await expect(agent.idle()).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  test("throws for unsupported options at the call", () => {
    const options = { address: "127.0.0.1:1", claw: "claw-1" };
    const late = { ...options, worker: { mainThreadTimeoutMs: 5 } };
    expect(() => createHeartbeatClient(late)).toThrow(/worker\.mainThreadTimeoutMs: 5 is out of range/);
    const transport = { unary: () => Promise.reject(), stream: () => Promise.reject() };
    expect(() => createHeartbeatClient({ claw: "claw-1", transport, worker: true })).toThrow(
      /transport cannot be used/,
    );
  });
});
