import { Code, ConnectError } from "@connectrpc/connect";
import { pino } from "pino";
import { expect, test } from "vitest";
import type { Grant } from "../../src/domain/principal.ts";
import { type Addresses, Server } from "../../src/server.ts";
import { CREDENTIALS, forAgents, type Mint, openMint } from "../support/access.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { newAgent } from "../support/contract-steps.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { HeartbeatClient } from "../support/heartbeat-client.ts";
import { GRPC_JS, openClients, PROTOCOLS, type ProtocolClients } from "../support/protocol-clients.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { until } from "../support/until.ts";

const CONNECT = PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2") ?? GRPC_JS;

/** One second is what is promised; a machine that is busy with other tests gets some more. */
const SOON_MS = 4_000;

interface Deployment extends AsyncDisposable {
  readonly replicas: readonly Addresses[];
  readonly mint: Mint;
  readonly admin: ProtocolClients;
  readonly logged: readonly string[];
}

async function deploy(options: { replicas: number }): Promise<Deployment> {
  const undo = new AsyncDisposableStack();
  const database = undo.use(await createTestDatabase());
  const mint = undo.use(openMint(database.url));
  const logged: string[] = [];
  const replicas: Addresses[] = [];
  for (let n = 0; n < options.replicas; n += 1) {
    const server = await Server.start({
      databaseUrl: database.url,
      grpcAddress: "127.0.0.1:0",
      httpAddress: "127.0.0.1:0",
      pace: { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 },
      firstLeaseMs: 60_000,
      access: CREDENTIALS,
      log: pino({ level: "trace" }, { write: (line: string) => logged.push(line) }),
    });
    undo.defer(() => server.stop(0));
    replicas.push(server.addresses);
  }
  const [first] = replicas;
  if (first === undefined) throw new Error("no replica");
  const { secret } = await mint.issue({ role: "admin" });
  const admin = undo.use(openClients(GRPC_JS, first, secret));
  return { replicas, mint, admin, logged, [Symbol.asyncDispose]: () => undo.disposeAsync() };
}

function through(url: string, address: string): string {
  const changed = new URL(url);
  changed.host = address;
  return changed.href;
}

/** A stream that is read until it ends, and how it ended. */
class OpenWatch {
  messages = 0;
  ended: ConnectError | "end" | undefined;
  readonly stop = new AbortController();

  constructor({ agents }: ProtocolClients) {
    const read = async (): Promise<void> => {
      const options = { signal: this.stop.signal, timeoutMs: 0 };
      for await (const _ of agents.watchAgents({ bookmarkInterval: { seconds: 1n } }, options)) this.messages += 1;
    };
    read().then(
      () => {
        this.ended = "end";
      },
      (error: unknown) => {
        this.ended = ConnectError.from(error);
      },
    );
  }
}

function expectUnauthenticated(ended: ConnectError | "end" | undefined): void {
  expect(ended).toBeInstanceOf(ConnectError);
  if (ended instanceof ConnectError) {
    expect(failureOf(ended)).toMatchObject({ code: Code.Unauthenticated, reason: "UNAUTHENTICATED" });
  }
}

interface OpenStreams extends AsyncDisposable {
  readonly beating: readonly HeartbeatClient[];
  readonly watching: readonly OpenWatch[];
  readonly clients: readonly ProtocolClients[];
  untilAllEnded(): Promise<void>;
}

/** A heartbeat stream and a watch on every replica, through both listeners, all by one token. */
async function openStreams(
  { replicas }: Deployment,
  secret: string,
  agentId: string | undefined,
): Promise<OpenStreams> {
  const undo = new AsyncDisposableStack();
  const clients = replicas.flatMap((addresses) =>
    [GRPC_JS, CONNECT].map((protocol) => undo.use(openClients(protocol, addresses, secret))),
  );
  const beating = agentId === undefined ? [] : clients.map(({ agents }) => undo.use(new HeartbeatClient(agents)));
  const watching = clients.map((each) => new OpenWatch(each));
  undo.defer(() => {
    for (const watch of watching) watch.stop.abort();
  });
  await until("all streams are open", () => {
    return watching.every(({ messages }) => messages > 0) && beating.every(({ responses }) => responses.length > 0);
  });
  return {
    beating,
    watching,
    clients,
    untilAllEnded: async () => {
      await until(
        "all streams have ended",
        () => [...beating, ...watching].every(({ ended }) => ended !== undefined),
        SOON_MS,
      );
    },
    [Symbol.asyncDispose]: () => undo.disposeAsync(),
  };
}

test("a revoked token ends its streams on every replica, through both listeners, and no others; and opens none", async () => {
  await using deployment = await deploy({ replicas: 2 });
  const { mint, admin } = deployment;
  const { agentId } = await newAgent(admin);
  const { secret, token } = await mint.issue(forAgents(agentId));
  const other = await mint.issue({ role: "viewer" });
  await using streams = await openStreams(deployment, secret, agentId);
  await using others = await openStreams(deployment, other.secret, undefined);
  await streams.beating[0]?.say({ agentId });

  const revokedAt = performance.now();
  await admin.tokens.revokeToken({ keyId: token.keyId });
  await streams.untilAllEnded();
  const tookMs = performance.now() - revokedAt;
  for (const { ended } of [...streams.beating, ...streams.watching]) expectUnauthenticated(ended);
  expect(tookMs).toBeLessThan(SOON_MS);
  for (const { agents } of streams.clients) {
    const error = await agents.listAgents({}).then(
      () => undefined,
      (thrown: unknown) => ConnectError.from(thrown),
    );
    expectUnauthenticated(error);
  }
  expect(others.watching.map(({ ended }) => ended)).toEqual(others.watching.map(() => undefined));
});

test("what expires ends its streams on every replica, too, and not before its time", async () => {
  await using deployment = await deploy({ replicas: 2 });
  const { mint, admin } = deployment;
  const { agentId } = await newAgent(admin);
  const { secret, token } = await mint.issue(forAgents(agentId), 6_000);
  await using streams = await openStreams(deployment, secret, agentId);
  await until("one of them has ended", () => [...streams.watching, ...streams.beating].some(({ ended }) => ended));
  // The machine's clock is the database's: between the two no more than what rounding and a reading make of it.
  expect(Date.now() * 1_000).toBeGreaterThan(token.expiresAt - 50_000);
  await streams.untilAllEnded();
  for (const { ended } of [...streams.beating, ...streams.watching]) expectUnauthenticated(ended);
});

test("cut off from the database, a replica trusts what it knows for a while, and not for ever", async () => {
  await using database = await createTestDatabase();
  const { port } = new URL(database.url);
  await using proxy = await FaultProxy.open(() => [Number(port)]);
  await using mint = openMint(database.url);
  // Streams that stand are trusted five times as long.
  const trustMs = 700;
  const server = await Server.start({
    databaseUrl: through(database.url, proxy.address),
    grpcAddress: "127.0.0.1:0",
    httpAddress: "127.0.0.1:0",
    pace: { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 60_000,
    access: { ...CREDENTIALS, trustMs },
    log: pino({ level: "silent" }),
  });
  await using undo = new AsyncDisposableStack();
  undo.defer(() => server.stop(0));
  const viewer: Grant = { role: "viewer" };
  const { secret, token } = await mint.issue(viewer);
  const clients = undo.use(openClients(GRPC_JS, server.addresses, secret));
  const watch = new OpenWatch(clients);
  undo.defer(() => watch.stop.abort());
  await until("the watch is open", () => watch.messages > 0);

  proxy.cut();
  const before = watch.messages;
  // It goes on for now: an outage of the database is no reason to send everybody away.
  await until("the watch goes on", () => watch.messages > before, 2_000);
  expect(watch.ended).toBeUndefined();
  await mint.tokens.revoke(token.keyId, { actor: "user:test", request: undefined });
  await until("the watch ends", () => watch.ended !== undefined, 5 * trustMs + 12_000);
  expect(watch.ended instanceof ConnectError && failureOf(watch.ended)).toMatchObject({
    code: Code.Unavailable,
    reason: "DATABASE_UNAVAILABLE",
  });
  const meanwhile = await clients.agents.listAgents({}).catch((error: unknown) => ConnectError.from(error));
  expect(meanwhile instanceof ConnectError && failureOf(meanwhile).reason).toBe("DATABASE_UNAVAILABLE");

  proxy.mend();
  const after = await until(
    "it can tell again",
    async () => {
      const error = await clients.agents.listAgents({}).catch((thrown: unknown) => ConnectError.from(thrown));
      return error instanceof ConnectError && error.code === Code.Unauthenticated && error;
    },
    15_000,
  );
  expectUnauthenticated(after);
});

test("a credential is in no log, at whatever level, and every change has its line in the audit log", async () => {
  await using deployment = await deploy({ replicas: 1 });
  const { mint, admin, replicas, logged } = deployment;
  const [addresses] = replicas;
  if (addresses === undefined) throw new Error("no replica");
  const { agentId } = await newAgent(admin);
  const issued = await admin.tokens.issueToken({ principal: "cal", role: 2, requestId: "audit-1" });
  const { secret, token } = await mint.issue({ role: "service" });
  const shown = [issued.secret, secret, "hf_ThisOneIsWrong_x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2VjcmV0LXNpZw"];
  for (const protocol of PROTOCOLS) {
    for (const each of shown) {
      using clients = openClients(protocol, addresses, each);
      await clients.agents.getAgent({ key: { case: "agentId", value: "nobody" } }).catch(() => undefined);
      await clients.users.createUser({ username: "x" }).catch(() => undefined);
    }
  }
  using service = openClients(GRPC_JS, addresses, secret);
  await service.agents.updateAgentStatus({ agentId, status: 3 });
  await admin.agents.deleteAgent({ agentId });
  await admin.tokens.revokeToken({ keyId: issued.token?.keyId ?? "" });

  const lines = logged.map((line): Record<string, unknown> => JSON.parse(line)).filter(({ audit }) => audit === true);
  const told = lines.map(({ method, actor }) => `${String(method).replace(/.*\//, "")} by ${actor}`);
  const byAdmin = String(lines[0]?.actor);
  expect(byAdmin).toMatch(/^user:admin-/);
  expect(told).toEqual([
    `CreateUser by ${byAdmin}`,
    `IssueToken by ${byAdmin}`,
    `UpdateAgentStatus by service:${token.principal}`,
    `DeleteAgent by ${byAdmin}`,
    `RevokeToken by ${byAdmin}`,
  ]);
  expect(lines[1]).toMatchObject({ principal: "cal", role: "ROLE_SERVICE", keyId: issued.token?.keyId });
  expect(lines[2]).toMatchObject({ agentId, status: "AGENT_STATUS_BUSY", credential: `token:${token.keyId}` });
  const everything = logged.join("\n");
  expect(everything.length).toBeGreaterThan(1_000);
  for (const each of shown) {
    for (const part of [each, ...each.split(/[_.]/).slice(2)]) {
      if (part.length > 5) expect(everything.includes(part), "a secret in the log").toBe(false);
    }
  }
});
