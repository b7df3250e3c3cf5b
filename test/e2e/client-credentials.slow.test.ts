import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createAgentCache, createHeartbeatClient, createServiceClients } from "harborforge-agents-client";
import { pino } from "pino";
import { expect, test } from "vitest";
import { Server } from "../../src/server.ts";
import { CREDENTIALS, forClaw, openMint } from "../support/access.ts";
import { createAuthority, LOCAL_NAMES } from "../support/certificates.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { until } from "../support/until.ts";

const SOON = () => ({ signal: AbortSignal.timeout(20_000) });

test("over TLS a client sends its token, and continues with the next one when it expires", async () => {
  await using undo = new AsyncDisposableStack();
  const folder = await temporaryFolder("client-tls");
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  const authority = createAuthority();
  const pair = authority.issue({ names: LOCAL_NAMES });
  const [certFile, keyFile] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  await Promise.all([writeFile(certFile, pair.cert), writeFile(keyFile, pair.key)]);
  const database = undo.use(await createTestDatabase());
  const mint = undo.use(openMint(database.url));
  const server = await Server.start({
    databaseUrl: database.url,
    grpcAddress: "127.0.0.1:0",
    httpAddress: "127.0.0.1:0",
    pace: { shortestIntervalMs: 2_000, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: 60_000,
    access: CREDENTIALS,
    tls: { certFile, keyFile, clientCaFile: undefined, clientCert: "none" },
    log: pino({ level: "silent" }),
  });
  undo.defer(() => server.stop(0));
  const target = { address: `https://${server.addresses.grpc}`, tls: { ca: authority.cert } };

  const admin = await mint.issue({ role: "admin" });
  using service = createServiceClients({ ...target, token: admin.secret });
  await service.users.createUser({ username: "bob", agentId: "bob-1", clawIdentifier: "claw-1" });
  await service.users.createUser({ username: "eve", agentId: "eve-1", clawIdentifier: "claw-2" });

  const first = await mint.issue(forClaw("claw-1"));
  const second = await mint.issue(forClaw("claw-1"));
  let token = first.secret;
  const claw = createHeartbeatClient({ ...target, token: () => token, claw: "claw-1" });
  undo.defer(() => claw.close({ withinMs: 0 }));
  const bob = claw.agent("bob-1");
  expect(await bob.busy(SOON())).toBe("applied");
  await expect(claw.agent("eve-1").busy(SOON())).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
  expect(claw.agent("eve-1").presence).toBe("refused");

  await using agents = createAgentCache({ ...target, token: (await mint.issue({ role: "viewer" })).secret });
  await agents.waitFor(({ get }) => get("bob-1")?.status === "busy", SOON());

  const connections: string[] = [];
  claw.on("connection", ({ state }) => connections.push(state));
  await service.tokens.revokeToken({ keyId: first.token.keyId });
  token = second.secret;
  await until("the client is connected anew", () => connections.includes("connected"));
  expect(await bob.idle(SOON())).toBe("applied");
  await agents.waitFor(({ get }) => get("bob-1")?.status === "idle", SOON());

  const stranger = createHeartbeatClient({ ...target, token: "no token of ours", claw: "claw-1" });
  undo.defer(() => stranger.close({ withinMs: 0 }));
  await expect(stranger.agent("bob-1").busy(SOON())).rejects.toMatchObject({
    reason: "STREAM_REFUSED",
    cause: { code: "UNAUTHENTICATED" },
  });
  const blind = createAgentCache({ ...target, token: "no token of ours" });
  await expect(blind.ready).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  await blind.close();

  // Without the authority, every server certificate is rejected.
  const careless = createHeartbeatClient({ address: target.address, token, claw: "claw-1" });
  undo.defer(() => careless.close({ withinMs: 0 }));
  await expect(careless.agent("bob-1").busy({ signal: AbortSignal.timeout(1_000) })).rejects.toThrow();
  expect(bob.presence).toBe("beating");
  await claw.close();
}, 90_000);
