import { createServiceClients } from "harborforge-agents-client";
import { describe, expect, test } from "vitest";
import { openStage, type RunOptions } from "../support/program.ts";
import { startService } from "../support/service.ts";

const CLIENT = new URL("../../packages/client/src/index.ts", import.meta.url);

/** Lets the program wrap each session that the library opens, however it imports node:http2. */
const WRAP_SESSIONS = `
import http2 from "node:http2";
import { syncBuiltinESMExports } from "node:module";
const connect = http2.connect;
const wrapSessions = (wrap) => {
  http2.connect = (...args) => {
    const session = connect(...args);
    wrap(session);
    return session;
  };
  syncBuiltinESMExports();
};
`;

/**
 * A second of this process is a tenth: 30 s of heartbeats and 20 s of a blocked event loop are 5 s of a test.
 */
const FAST_TIME = `
const FACTOR = 10;
const [now, steady, later, repeat] = [Date.now, performance.now.bind(performance), setTimeout, setInterval];
const [began, begun] = [now(), steady()];
Date.now = () => began + (now() - began) * FACTOR;
performance.now = () => begun + (steady() - begun) * FACTOR;
globalThis.setTimeout = (task, ms, ...rest) => later(task, ms / FACTOR, ...rest);
globalThis.setInterval = (task, ms, ...rest) => repeat(task, ms / FACTOR, ...rest);
const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms / FACTOR);
`;

/** A session is destroyed for a late ping, and closed before Node has emitted the error. */
const LATE_PING = `
${WRAP_SESSIONS}
${FAST_TIME}
const { createServiceClients } = await import(${JSON.stringify(CLIENT)});
const service = createServiceClients({ address: process.env.ADDRESS });
wrapSessions((session) => {
  const ping = session.ping.bind(session);
  session.ping = (answered) => ping((error, duration, payload) => {
    answered(error, 20_000, payload);
    session.destroy(new Error("PING timed out"));
    service.reconnect();
    console.log("pinged");
  });
});
// A stream on which nothing comes for a minute.
try {
  for await (const _ of service.agents.watchAgents({ bookmarkInterval: { seconds: 60n } }));
} catch (error) {
  console.log(error.message);
}
await service.agents.getFleet({});
console.log("works");
service.close();
`;

/** The event loop is blocked in the tick in which a ping was sent, for longer than the ping's limit. */
const STALL_AFTER_PING = `
${WRAP_SESSIONS}
${FAST_TIME}
const { createHeartbeatClient } = await import(${JSON.stringify(CLIENT)});
let stalls = 0;
wrapSessions((session) => {
  const ping = session.ping.bind(session);
  session.ping = (answered) => {
    const sent = ping(answered);
    if (stalls++ === 0) process.nextTick(() => block(20_000));
    return sent;
  };
});
const claw = createHeartbeatClient({ address: process.env.ADDRESS, claw: "claw-1" });
await claw.agent("bob").busy();
let connected = 0;
claw.on("connection", ({ state }) => (connected += state === "connected" ? 1 : 0));
while (stalls === 0) await new Promise((resolve) => later(resolve, 20));
await new Promise((resolve) => later(resolve, 1_500));
await claw.agent("bob").idle();
console.log("stalled", stalls > 0);
await claw.close();
`;

/** Runs a program beside a service with an agent. @returns how it ended */
async function end(source: string, { env = {}, ...options }: RunOptions = {}) {
  await using service = await startService({ pace: { shortestIntervalMs: 30_000, heartbeatsPerSecond: 10_000 } });
  await using stage = await openStage();
  const ADDRESS = service.addresses.grpc;
  using clients = createServiceClients({ address: ADDRESS });
  await clients.users.createUser({ username: "bob", agentId: "bob", clawIdentifier: "claw-1" });
  const program = stage.run(process.execPath, ["--input-type=module", "--eval", source], {
    ...options,
    env: { ADDRESS, ...env },
  });
  return await program.ended;
}

describe("the client library does not end its host", () => {
  test("when a session is destroyed for a late ping and closed in the same turn", { timeout: 60_000 }, async () => {
    expect(await end(LATE_PING)).toMatchObject({ code: 0, stdout: "pinged\nPING timed out\nworks\n", stderr: "" });
  });

  test("when the event loop is blocked for 20 s right after a ping was sent", { timeout: 60_000 }, async () => {
    expect(await end(STALL_AFTER_PING)).toMatchObject({ code: 0, stdout: "stalled true\n", stderr: "" });
  });
});
