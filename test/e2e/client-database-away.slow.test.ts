import { createHeartbeatClient, createServiceClients } from "harborforge-agents-client";
import { pino } from "pino";
import { expect, test } from "vitest";
import { Server } from "../../src/server.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { DatabaseProxy } from "../support/gate-proxy.ts";
import { startService } from "../support/service.ts";
import { until } from "../support/until.ts";

const PACE = { shortestIntervalMs: 1_500, heartbeatsPerSecond: 10_000 };

test("a client of a replica without its database waits: it is not connected in between, and its reports are kept", async () => {
  await using undo = new AsyncDisposableStack();
  const service = undo.use(await startService({ pace: PACE }));
  const toDatabase = undo.use(await DatabaseProxy.open(service.databaseUrl));
  const replica = undo.use(
    await Server.start({
      databaseUrl: toDatabase.url,
      grpcAddress: "127.0.0.1:0",
      httpAddress: "127.0.0.1:0",
      pace: PACE,
      firstLeaseMs: 60_000,
      log: pino({ level: "silent" }),
    }),
  );
  undo.defer(() => toDatabase.mend());
  const path = undo.use(await FaultProxy.open(() => [Number(replica.addresses.grpc.split(":")[1])]));
  using direct = createServiceClients({ address: service.addresses.grpc });
  for (const agentId of ["a", "b"]) {
    await direct.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  }
  const claw = createHeartbeatClient({ address: path.address, claw: "claw-1" });
  undo.defer(() => claw.close({ withinMs: 0 }));
  const states: string[] = [];
  claw.on("connection", ({ state }) => states.push(state));
  expect(await claw.agent("a").idle()).toBe("applied");
  expect(states).toEqual(["connected"]);

  toDatabase.cut();
  // Its next streams go to the same replica, which accepts them before it has detected its isolation.
  path.drop();
  const report = claw.agent("a").busy();
  await until("several attempts", () => states.length > 5);
  expect(new Set(states.slice(1))).toEqual(new Set(["waiting"]));

  // A program that starts now learns that it is not connected.
  const late = createHeartbeatClient({ address: path.address, claw: "claw-1", timeoutMs: 1_000 });
  undo.defer(() => late.close({ withinMs: 0 }));
  late.on("connection", () => undefined);
  const first = late.agent("b").busy();
  await expect(first).rejects.toMatchObject({ name: "ReportError", reason: "NOT_CONNECTED", agentId: "b" });

  toDatabase.mend();
  expect(await report).toBe("applied");
  await until("the client is connected", () => states.at(-1) === "connected");
  await until("the report of the late program is applied, too", () => late.agent("b").status === "busy");
}, 90_000);
