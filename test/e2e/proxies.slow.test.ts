import { Agent as HttpsAgent } from "node:https";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../gen/health/v1/health_pb.ts";
import { Server } from "../../src/server.ts";
import { CREDENTIALS, forClaw, openMint } from "../support/access.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { HeartbeatStream, StreamReader, Watch } from "../support/contract-streams.ts";
import { bearing } from "../support/protocol-clients.ts";
import { notInstalled, type ProxyName, type Replicas, type RunningProxy, startProxy } from "../support/proxies.ts";
import { failure } from "../support/rpc-clients.ts";
import { unique } from "../support/service.ts";
import { PATIENCE } from "../support/until.ts";

const CLAW = "claw-1";
const HOSTS = ["127.0.0.2", "127.0.0.3"] as const;

interface Fleet extends AsyncDisposable {
  readonly replicas: Replicas;
  readonly servers: readonly [Server, Server];
  /** Of an administrator. */
  readonly token: string;
  /** Of the claw `CLAW`. */
  readonly clawToken: string;
}

/** Two replicas on one database. They have one pair of ports on two addresses, as on two machines. */
async function startFleet(): Promise<Fleet> {
  await using undo = new AsyncDisposableStack();
  const database = undo.use(await createTestDatabase());
  const start = (grpcAddress: string, httpAddress: string): Promise<Server> =>
    Server.start({
      databaseUrl: database.url,
      grpcAddress,
      httpAddress,
      pace: { shortestIntervalMs: 60_000, heartbeatsPerSecond: 10_000 },
      firstLeaseMs: 300_000,
      access: CREDENTIALS,
      log: pino({ level: "silent" }),
    });
  const first = undo.use(await start(`${HOSTS[0]}:0`, `${HOSTS[0]}:0`));
  const port = (address: string): number => Number(address.split(":").at(-1));
  const [grpcPort, httpPort] = [port(first.addresses.grpc), port(first.addresses.http)];
  const second = undo.use(await start(`${HOSTS[1]}:${grpcPort}`, `${HOSTS[1]}:${httpPort}`));
  await using mint = openMint(database.url);
  const { secret: token } = await mint.issue({ role: "admin" });
  const { secret: clawToken } = await mint.issue(forClaw(CLAW));
  const all = undo.move();
  return {
    replicas: { hosts: HOSTS, grpcPort, httpPort },
    servers: [first, second],
    token,
    clawToken,
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

type Way =
  | "gRPC"
  | "Connect JSON over HTTP/1.1"
  | "Connect over HTTP/2"
  | "gRPC-Web over HTTP/1.1"
  | "gRPC-Web over HTTP/2";
const WAYS: readonly Way[] = [
  "gRPC",
  "Connect JSON over HTTP/1.1",
  "Connect over HTTP/2",
  "gRPC-Web over HTTP/1.1",
  "gRPC-Web over HTTP/2",
];

/** A transport through the proxy, on connections of its own. */
function through({ url, ca }: RunningProxy, way: Way, token: string): { transport: Transport } & Disposable {
  if (way.endsWith("HTTP/1.1")) {
    const agent = new HttpsAgent({ ca, keepAlive: true });
    const options = { baseUrl: url, httpVersion: "1.1" as const, nodeOptions: { agent } };
    const transport =
      way === "Connect JSON over HTTP/1.1"
        ? createConnectTransport({ ...options, useBinaryFormat: false })
        : createGrpcWebTransport(options);
    return { transport: bearing(transport, token), [Symbol.dispose]: () => agent.destroy() };
  }
  const sessionManager = new Http2SessionManager(url, {}, { ca });
  const options = { baseUrl: url, httpVersion: "2" as const, sessionManager };
  const make = { gRPC: createGrpcTransport, "Connect over HTTP/2": createConnectTransport }[String(way)];
  const transport = (make ?? createGrpcWebTransport)(options);
  return { transport: bearing(transport, token), [Symbol.dispose]: () => sessionManager.abort() };
}

const clientsOf = (transport: Transport) => ({
  users: createClient(UserService, transport),
  agents: createClient(AgentService, transport),
  health: createClient(Health, transport),
});

async function newAgent({ users }: Pick<ReturnType<typeof clientsOf>, "users">): Promise<string> {
  const agentId = unique("agent");
  await users.createUser({ username: unique("user"), agentId, clawIdentifier: CLAW });
  return agentId;
}

const PROXIES: readonly ProxyName[] = ["nginx", "haproxy", "caddy"];

describe.each(PROXIES)("%s with the configuration of docs/proxies.md", (name) => {
  const missing = notInstalled(name);
  if (missing !== undefined) {
    process.stderr.write(`\n!!! NOT TESTED: ${missing}\n\n`);
    test("passes all protocols", (context) => context.skip(missing));
    return;
  }

  let fleet: Fleet;
  let proxy: RunningProxy;
  beforeAll(async () => {
    fleet = await startFleet();
    proxy = await startProxy(name, fleet.replicas);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await fleet?.[Symbol.asyncDispose]();
  });

  test.each(WAYS)("passes calls, and the changes of a watch at once, through %s", async (way) => {
    using opened = through(proxy, way, fleet.token);
    const clients = clientsOf(opened.transport);
    const agentId = await newAgent(clients);
    await using watch = new Watch(clients, { filter: { agentIds: [agentId] } });
    await watch.untilComplete();
    // Each change arrives before the next one is made: nothing collects messages.
    for (const [index, status] of [AgentStatus.BUSY, AgentStatus.ON_CALL, AgentStatus.BUSY].entries()) {
      await clients.agents.updateAgentStatus({ agentId, status });
      expect((await watch.change(index)).agent?.status).toBe(status);
    }
    expect(await failure(clients.agents.getAgent({ key: { case: "agentId", value: "nobody" } }))).toMatchObject({
      code: Code.NotFound,
      reason: "AGENT_NOT_FOUND",
    });
  });

  test("passes credentials, and nothing without one", async () => {
    using opened = through(proxy, "gRPC", "hf_wrong");
    expect(await failure(clientsOf(opened.transport).agents.getFleet({}))).toMatchObject({ reason: "UNAUTHENTICATED" });
  });

  /** To the first replica, without the proxy. */
  function direct(): Transport {
    return createGrpcTransport({ baseUrl: `http://${HOSTS[0]}:${fleet.replicas.grpcPort}` });
  }

  test.each(
    name === "nginx" ? (["gRPC"] as const) : (["gRPC", "Connect over HTTP/2", "gRPC-Web over HTTP/2"] as const),
  )("passes a heartbeat stream of more than a megabyte through %s", async (way) => {
    const agentId = await newAgent(clientsOf(bearing(direct(), fleet.token)));
    using opened = through(proxy, way, fleet.clawToken);
    await using stream = new HeartbeatStream(clientsOf(opened.transport));
    expect(await stream.beat({ beats: [{ agentId }] })).toHaveLength(1);
    // Each message is 100 KB: beats of agents that do not exist.
    const beats = Array.from({ length: 900 }, (_, index) => ({ agentId: `${index}-${"x".repeat(100)}` }));
    for (let message = 0; message < 15; message += 1) await stream.beat({ beats });
    expect(stream.ended).toBe(false);
  }, 120_000);

  if (name === "nginx") {
    test("rejects a heartbeat stream in Connect's own protocol, with the reason", async () => {
      using opened = through(proxy, "Connect over HTTP/2", fleet.clawToken);
      await using stream = new HeartbeatStream(clientsOf(opened.transport));
      stream.send({ beats: [] });
      stream.input.end();
      expect(await failure(stream.end())).toMatchObject({ reason: "HTTP2_REQUIRED" });
    });

    test("cuts a heartbeat stream at a megabyte without client_max_body_size", async () => {
      await using cutting = await startProxy(name, fleet.replicas, (text) =>
        text.replace("client_max_body_size 0;", ""),
      );
      using opened = through(cutting, "gRPC", fleet.clawToken);
      await using stream = new HeartbeatStream(clientsOf(opened.transport));
      const beats = Array.from({ length: 900 }, (_, index) => ({ agentId: `${index}-${"x".repeat(100)}` }));
      const sent = async (): Promise<void> => {
        for (let message = 0; message < 15; message += 1) await stream.beat({ beats });
      };
      await expect(sent()).rejects.toThrow(/the stream ended before: message (8|9|1\d) /);
    });

    test("collects the messages of a watch without X-Accel-Buffering", async () => {
      const ignoring = "proxy_ignore_headers X-Accel-Buffering; proxy_http_version 1.1;";
      await using collecting = await startProxy(name, fleet.replicas, (text) =>
        text.replace("proxy_http_version 1.1;", ignoring),
      );
      using opened = through(collecting, "Connect JSON over HTTP/1.1", fleet.token);
      const clients = clientsOf(opened.transport);
      const agentId = await newAgent(clients);
      await using watch = new Watch(clients, { filter: { agentIds: [agentId] }, bookmarkInterval: { seconds: 300n } });
      await using beside = new Watch(clientsOf(bearing(direct(), fleet.token)), { filter: { agentIds: [agentId] } });
      await beside.untilComplete();
      await clients.agents.updateAgentStatus({ agentId, status: AgentStatus.BUSY });
      // The change has arrived on the direct watch, and long after that still not behind nginx.
      await beside.change(0);
      await clients.agents.getFleet({});
      expect(watch.messages).toHaveLength(0);
    });
  }

  test("keeps streams that are silent for longer than the usual timeout of proxies", { timeout: 150_000 }, async () => {
    using grpc = through(proxy, "gRPC", fleet.token);
    using web = through(proxy, "gRPC-Web over HTTP/1.1", fleet.token);
    using claw = through(proxy, "gRPC", fleet.clawToken);
    const clients = clientsOf(grpc.transport);
    const agentId = await newAgent(clients);
    await using heartbeats = new HeartbeatStream(clientsOf(claw.transport));
    await heartbeats.beat({ beats: [{ agentId }] });
    const readers = [clients.health, clientsOf(web.transport).health].map(
      (health) => new StreamReader((signal) => health.watch({}, { signal, timeoutMs: 0 })),
    );
    for (const reader of readers) await reader.until("its first message", () => reader.messages.length === 1);
    // nginx's timeouts are 60 s by default, HAProxy's are 50 s in Debian's configuration.
    await new Promise((resolve) => setTimeout(resolve, 65_000));
    expect(await heartbeats.beat({ beats: [{ agentId, status: AgentStatus.BUSY }] })).toMatchObject([{ agentId }]);
    expect(readers.map(({ ended }) => ended)).toEqual([false, false]);
    for (const reader of readers) await reader[Symbol.asyncDispose]();
  });

  // Caddy has no timeout for silent streams.
  test.runIf(name !== "caddy")("ends silent streams by the timeouts of its configuration", async () => {
    await using impatient = await startProxy(name, fleet.replicas, (text) => text.replaceAll("15m", "2s"));
    for (const way of ["gRPC", "gRPC-Web over HTTP/1.1"] as const) {
      using opened = through(impatient, way, fleet.token);
      const { health } = clientsOf(opened.transport);
      await using reader = new StreamReader((signal) => health.watch({}, { signal, timeoutMs: 0 }));
      await reader.until("its first message", () => reader.messages.length === 1);
      await expect(reader.end()).rejects.toThrow();
    }
  });

  const stops =
    name === "nginx"
      ? "loses few calls when a replica stops without notice, and none after that"
      : "sends no call to a replica that stops, and no call fails";
  test(stops, { timeout: 120_000 }, async () => {
    await using own = await startFleet();
    await using front = await startProxy(name, own.replicas);
    const [leaving, staying] = own.servers;
    using grpc = through(front, "gRPC", own.token);
    using connect = through(front, "Connect JSON over HTTP/1.1", own.token);
    const callers = [clientsOf(grpc.transport), clientsOf(connect.transport)];
    const agentId = await newAgent(callers[0] ?? clientsOf(grpc.transport));
    const failures: unknown[] = [];
    let calls = 0;
    let stopped = false;
    const more = async (count: number): Promise<void> => {
      const wanted = calls + count;
      await vi.waitFor(() => expect(calls).toBeGreaterThanOrEqual(wanted), PATIENCE);
    };
    const calling = callers.map(async ({ agents }) => {
      while (!stopped) {
        await agents.getAgent({ key: { case: "agentId", value: agentId } }).then(
          () => (calls += 1),
          (error: unknown) => failures.push(error),
        );
      }
    });
    // As with HARBORFORGE_DRAIN_DELAY: longer than two failed health checks. nginx has none.
    if (name !== "nginx") {
      leaving.announceStop();
      await notChosen(own, front);
    }
    await leaving.stop(0);
    // Calls that were under way when the replica closed its connections.
    await more(10);
    const lost = failures.length;
    await more(50);
    stopped = true;
    await Promise.all(calling);
    if (name === "nginx") expect(lost).toBeLessThan(20);
    else expect(failures).toEqual([]);
    expect(failures.slice(lost)).toEqual([]);
    expect((await createHealthOf(staying).check({})).status).toBe(Status.SERVING);
  });

  /** Waits until the proxy sends each new call to the second replica: its health is the only one that serves. */
  async function notChosen({ token }: Fleet, front: RunningProxy): Promise<void> {
    const deadline = performance.now() + 60_000;
    for (let served = 0; served < 30; ) {
      using opened = through(front, served % 2 === 0 ? "gRPC" : "Connect JSON over HTTP/1.1", token);
      const { status } = await clientsOf(opened.transport).health.check({});
      served = status === Status.SERVING ? served + 1 : 0;
      if (performance.now() > deadline) throw new Error(`${name} still sends calls to the replica that stops`);
    }
  }

  function createHealthOf({ addresses }: Server) {
    return createClient(Health, createGrpcTransport({ baseUrl: `http://${addresses.grpc}` }));
  }
});
