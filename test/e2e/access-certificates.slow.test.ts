import { rm, writeFile } from "node:fs/promises";
import { Agent as HttpsAgent } from "node:https";
import { join } from "node:path";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { pino } from "pino";
import { describe, expect, onTestFinished, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { type Addresses, Server } from "../../src/server.ts";
import { openMint } from "../support/access.ts";
import { type CertificatePair, createAuthority, LOCAL_NAMES } from "../support/certificates.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { bearing } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";

const servers = createAuthority("servers");
const clients = createAuthority("clients");

const PRINCIPALS = [
  { uri: "spiffe://example.org/claw/7", principal: "claw-7", role: "agent", agent_ids: ["seven"] },
  { dns_name: "billing.internal", principal: "billing", role: "service" },
];

/** Long enough for a connection on a busy machine. */
const LIFE_MS = 6_000;

interface Way {
  readonly name: string;
  readonly overHttp2: boolean;
  transport(addresses: Addresses, pair: CertificatePair | undefined): Transport;
}

const WAYS: readonly Way[] = [
  {
    name: "gRPC at the gRPC listener",
    overHttp2: true,
    transport: ({ grpc }, pair) => {
      const baseUrl = `https://${grpc}`;
      const sessionManager = new Http2SessionManager(baseUrl, {}, { ca: servers.cert, ...pair });
      onTestFinished(() => sessionManager.abort());
      return createGrpcTransport({ baseUrl, sessionManager });
    },
  },
  {
    name: "Connect over HTTP/1.1 at the Connect listener",
    overHttp2: false,
    transport: ({ http }, pair) => {
      const agent = new HttpsAgent({ keepAlive: true, ca: servers.cert, ...pair });
      onTestFinished(() => agent.destroy());
      return createConnectTransport({ baseUrl: `https://${http}`, httpVersion: "1.1", nodeOptions: { agent } });
    },
  },
];

/** A service with TLS that requests certificates, with principals for some of them. */
async function start() {
  const folder = await temporaryFolder("mtls");
  onTestFinished(() => rm(folder, { recursive: true }));
  const write = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  const own = servers.issue({ names: LOCAL_NAMES });
  const database = await createTestDatabase();
  onTestFinished(() => database.drop());
  const server = await Server.start({
    databaseUrl: database.url,
    grpcAddress: "127.0.0.1:0",
    httpAddress: "127.0.0.1:0",
    pace: { shortestIntervalMs: 10_000, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 60_000,
    tls: {
      certFile: await write("cert.pem", own.cert),
      keyFile: await write("key.pem", own.key),
      clientCaFile: await write("clients.pem", clients.cert),
      clientCert: "optional",
    },
    access: {
      kind: "credentials",
      jwt: undefined,
      certificatePrincipals: await write("principals.json", JSON.stringify(PRINCIPALS)),
    },
    log: pino({ level: "silent" }),
  });
  onTestFinished(() => server.stop(0));
  return { addresses: server.addresses, databaseUrl: database.url };
}

const withUri = (uri: string): CertificatePair => clients.issue({ names: { uris: [uri] }, usage: "client" });

describe.each(WAYS)("$name", ({ overHttp2, transport }) => {
  test("a known client certificate gives its principal, and any other one is rejected", async () => {
    const { addresses, databaseUrl } = await start();
    const as = (pair: CertificatePair | undefined) => createClient(AgentService, transport(addresses, pair));
    const claw = as(withUri("spiffe://example.org/claw/7"));
    const beat = await claw.sendHeartbeat({ beats: [{ agentId: "seven" }, { agentId: "eight" }] });
    expect(beat.results.map(({ error }) => error?.reason)).toEqual([
      ErrorReason.AGENT_NOT_FOUND,
      ErrorReason.PERMISSION_DENIED,
    ]);
    const billing = as(clients.issue({ names: { dnsNames: ["billing.internal"] }, usage: "client" }));
    expect((await billing.listAgents({})).agents).toEqual([]);
    expect(await failure(billing.sendHeartbeat({}))).toMatchObject({ code: Code.PermissionDenied });

    for (const pair of [undefined, withUri("spiffe://example.org/claw/8")]) {
      expect(await failure(as(pair).listAgents({}))).toMatchObject({ code: Code.Unauthenticated });
    }

    // A token takes precedence over the certificate of the connection.
    await using mint = openMint(databaseUrl);
    const { secret } = await mint.issue({ role: "service" });
    const known = transport(addresses, withUri("spiffe://example.org/claw/7"));
    await createClient(AgentService, bearing(known, secret)).listAgents({});
    const wrong = createClient(AgentService, bearing(known, "hf_wrong"));
    expect(await failure(wrong.listAgents({}))).toMatchObject({ code: Code.Unauthenticated });
  });

  test("a certificate is valid until it expires, also on an open connection", async () => {
    const { addresses } = await start();
    const names = { dnsNames: ["billing.internal"] };
    const pair = clients.issue({ names, usage: "client", notAfter: new Date(Date.now() + LIFE_MS) });
    const billing = createClient(AgentService, transport(addresses, pair));
    await billing.listAgents({});
    const watching = (async () => {
      for await (const _ of billing.watchAgents({}));
    })();
    expect(await failure(watching)).toMatchObject({ code: Code.Unauthenticated });
    // HTTP/2 continues on the open connection; HTTP/1.1 may need another one, which fails in its handshake.
    const { code } = await failure(billing.listAgents({}));
    expect(overHttp2 ? [Code.Unauthenticated] : [Code.Unauthenticated, Code.Aborted]).toContain(code);
  });
});
