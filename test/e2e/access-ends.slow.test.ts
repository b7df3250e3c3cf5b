import { Code, ConnectError } from "@connectrpc/connect";
import { pino } from "pino";
import { expect, test } from "vitest";
import type { Grant } from "../../src/domain/principal.ts";
import { Server } from "../../src/server.ts";
import { CREDENTIALS, forAgents, openMint } from "../support/access.ts";
import { deploy, expectUnauthenticated, OpenWatch, openStreams } from "../support/access-deployment.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { newAgent } from "../support/contract-steps.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { GRPC_JS, openClients } from "../support/protocol-clients.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { until } from "../support/until.ts";

function through(url: string, address: string): string {
  const changed = new URL(url);
  changed.host = address;
  return changed.href;
}

test("an expired credential ends its streams on every replica, and not early", async () => {
  await using deployment = await deploy({ replicas: 2 });
  const { mint, admin } = deployment;
  const { agentId } = await newAgent(admin);
  const { secret, token } = await mint.issue(forAgents(agentId), 6_000);
  await using streams = await openStreams(deployment, secret, agentId);
  await until("one of them has ended", () => [...streams.watching, ...streams.beating].some(({ ended }) => ended));
  // The clocks of machine and database are the same, except for rounding and the delay of a reading.
  expect(Date.now() * 1_000).toBeGreaterThan(token.expiresAt - 50_000);
  await streams.untilAllEnded();
  for (const { ended } of [...streams.beating, ...streams.watching]) expectUnauthenticated(ended);
});

test("a replica without its database trusts cached credentials for a limited time", async () => {
  await using database = await createTestDatabase();
  const { port } = new URL(database.url);
  await using proxy = await FaultProxy.open(() => [Number(port)]);
  await using mint = openMint(database.url);
  // Open streams are trusted five times as long.
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
  // The stream stays for now: an outage of the database must not end all streams.
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
