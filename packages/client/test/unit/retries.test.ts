import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentService } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { createRetryPause } from "../../src/connection/retry-pause.ts";
import { createHeartbeatClient } from "../../src/heartbeats/heartbeat-client.ts";
import { watchAgents } from "../../src/watch/browser-watch.ts";

/**
 * The outcome of one stream. `greets`: the server sends a first response, and nothing that shows that the
 * stream works.
 */
type Fate = "fails" | "greets" | "works";

/** A first wait: 125 to 250 ms. */
const FIRST_MS = 250;
/** The minimum of waits after many failures. */
const LONG_MS = 5_000;
const LEASE = { seconds: 30n, nanos: 0 };
const INTERVAL = { seconds: 10n, nanos: 0 };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const times = (count: number, fate: Fate): Fate[] => Array.from({ length: count }, () => fate);

/** A service whose streams have these outcomes, one after the other; each ends like a lost connection. */
function serviceOf(fates: readonly Fate[]) {
  let streams = 0;
  const next = (): Fate => fates[streams++] ?? "fails";
  const lost = () => new ConnectError("the connection is lost", Code.Unavailable);
  return createRouterTransport(({ service }) => {
    service(AgentService, {
      async *heartbeat(requests) {
        const fate = next();
        if (fate === "fails") throw lost();
        yield { leaseTtl: LEASE, nextHeartbeatIn: INTERVAL, limits: { maxBeats: 10 } };
        if (fate === "greets") throw lost();
        for await (const { sequence } of requests) {
          yield { acknowledgedSequence: sequence };
          throw lost();
        }
      },
      async *watchAgents() {
        const fate = next();
        if (fate === "fails") throw lost();
        yield { revision: 5n, bookmark: { snapshotComplete: true } };
        throw lost();
      },
    });
  });
}

/** Advances the time until there are so many waits. */
async function untilWaits(waits: readonly number[], count: number): Promise<void> {
  for (let second = 0; waits.length < count && second < 10 * count; second += 1)
    await vi.advanceTimersByTimeAsync(1_000);
  expect(waits).toHaveLength(count);
}

/** The waits of a heartbeat client after each of its streams, in milliseconds. */
async function waitsOfHeartbeats(fates: readonly Fate[]): Promise<number[]> {
  const waits: number[] = [];
  const claw = createHeartbeatClient({ transport: serviceOf(fates), claw: "claw-1" });
  claw.on("connection", (connection) => {
    if (connection.state === "waiting" && waits.length < fates.length) waits.push(connection.retryInMs);
  });
  claw.agent("a");
  await untilWaits(waits, fates.length);
  await claw.close({ goodbye: false, withinMs: 0 });
  return waits;
}

/** The same of a watch. */
async function waitsOfWatch(fates: readonly Fate[]): Promise<number[]> {
  const waits: number[] = [];
  const stop = new AbortController();
  const reading = (async () => {
    for await (const event of watchAgents({ transport: serviceOf(fates), signal: stop.signal })) {
      if (event.kind === "interrupted" && waits.length < fates.length) waits.push(event.retryInMs);
    }
  })();
  await untilWaits(waits, fates.length);
  stop.abort();
  await vi.advanceTimersByTimeAsync(20_000);
  await reading;
  return waits;
}

describe.each([
  { client: "a heartbeat stream", waitsOf: waitsOfHeartbeats },
  { client: "a watch", waitsOf: waitsOfWatch },
])("the waits before $client is opened again", ({ waitsOf }) => {
  it("grow while each attempt fails", async () => {
    const waits = await waitsOf(times(8, "fails"));
    expect(waits[0]).toBeLessThanOrEqual(FIRST_MS);
    expect(waits[7]).toBeGreaterThanOrEqual(LONG_MS);
  });

  it("start again after a stream that worked", async () => {
    const waits = await waitsOf([...times(8, "fails"), "works", "fails", "fails"]);
    expect(waits[7]).toBeGreaterThanOrEqual(LONG_MS);
    expect(waits[8]).toBeLessThanOrEqual(FIRST_MS);
    expect(waits[9]).toBeLessThanOrEqual(2 * FIRST_MS);
    expect(waits[10]).toBeLessThanOrEqual(4 * FIRST_MS);
  });

  it("stay short, however many streams have worked and were lost", async () => {
    const waits = await waitsOf(times(20, "works"));
    expect(Math.max(...waits)).toBeLessThanOrEqual(FIRST_MS);
  });
});

describe("a heartbeat stream with a first response and no acknowledgement", () => {
  it("counts as failed: the waits grow", async () => {
    const waits = await waitsOfHeartbeats(times(8, "greets"));
    expect(waits[7]).toBeGreaterThanOrEqual(LONG_MS);
  });
});

describe("the wait between two attempts", () => {
  it("doubles from 250 ms to 10 s, is shortened by up to a half, and starts again after a success", () => {
    let random = 0;
    const retry = createRetryPause(() => random);
    expect(Array.from({ length: 8 }, () => retry.next())).toEqual([125, 250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    random = 1;
    expect(retry.next()).toBe(10_000);
    retry.reset();
    expect([retry.next(), retry.next()]).toEqual([250, 500]);
  });

  it("is added to the delay that the server requests", () => {
    const retry = createRetryPause(() => 1);
    expect([retry.next(60_000), retry.next()]).toEqual([60_250, 500]);
  });
});
