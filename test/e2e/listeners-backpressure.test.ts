import { once } from "node:events";
import type { ClientHttp2Session } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { GetAgentRequestSchema, HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type Start, StreamScheduler } from "../../src/rpc/sockets/stream-scheduler.ts";
import { eventually, type RunningListeners, startListeners } from "../support/rpc-listeners.ts";
import { envelope, http2Call, http2Connect, type RawResponse, tcp } from "../support/rpc-raw.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";
const HEARTBEAT = "/harborforge.agents.v1.AgentService/Heartbeat";
const GRPC = { "content-type": "application/grpc" };
const CALLS = 600;
/** So large that a read of 64 KiB brings sixteen calls, and all together are some forty reads. */
const LONG = "x".repeat(4_000);
/** As in src/rpc/sockets/backpressure.ts: the limit of waiting calls, and the pause before one more read. */
const MOST_WAITING = 64;
const PAUSE_MS = 100;
const PER_READ = 17;

const asking = envelope(
  toBinary(GetAgentRequestSchema, create(GetAgentRequestSchema, { key: { case: "agentId", value: "a" } })),
);
const beat = envelope(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, { sequence: 1n })));

/** A scheduler that holds calls until the test releases them. */
class HeldTurns extends StreamScheduler {
  held = false;
  /** The arrival of each waiting call, in milliseconds. */
  readonly came: number[] = [];
  readonly #waiting: (readonly [object, Start])[] = [];

  override add(connection: object, start: Start): void {
    if (this.held) {
      this.came.push(performance.now());
      this.#waiting.push([connection, start]);
    } else {
      super.add(connection, start);
    }
  }

  release(): void {
    this.held = false;
    for (const [connection, start] of this.#waiting.splice(0)) super.add(connection, start);
  }
}

function flood(session: ClientHttp2Session): Promise<RawResponse[]> {
  session.setMaxListeners(0);
  const calls = Array.from({ length: CALLS }, (_, n) => {
    const { response, stream } = http2Call(session, GET_AGENT, { ...GRPC, "x-long": `${n}${LONG}` });
    stream.end(asking);
    return response;
  });
  const all = Promise.all(calls);
  all.catch(() => undefined);
  return all;
}

describe.each([
  ["the gRPC listener", (listeners: RunningListeners) => listeners.grpcAddress],
  ["the Connect listener", (listeners: RunningListeners) => listeners.connectAddress],
] as const)("%s", (_name, addressOf) => {
  test("pauses reading from a connection with many waiting calls, and answers all of them in the end", async () => {
    const turns = new HeldTurns();
    await using listeners = await startListeners({ scheduler: turns });
    const session = await http2Connect(addressOf(listeners));
    turns.held = true;
    const answered = flood(session);
    await eventually("many wait, and a pause is over", () => {
      const reached = turns.came[MOST_WAITING];
      return reached !== undefined && performance.now() > reached + PAUSE_MS;
    });
    // More calls may arrive before the first pause: the rest of the read that exceeded the limit.
    const reached = turns.came[MOST_WAITING] ?? 0;
    const within = turns.came.filter((at) => at < reached + 0.8 * PAUSE_MS).length;
    expect(within).toBeLessThanOrEqual(MOST_WAITING + 1 + PER_READ);
    turns.release();
    const statuses = (await answered).map(({ trailers }) => trailers.get("grpc-status"));
    expect(statuses).toEqual(Array.from({ length: CALLS }, () => "0"));
    session.destroy();
  });

  test("reads pings, and messages of open streams, from a connection whose calls wait", async () => {
    const turns = new HeldTurns();
    await using listeners = await startListeners({ scheduler: turns });
    const session = await http2Connect(addressOf(listeners));
    const { stream } = http2Call(session, HEARTBEAT, GRPC);
    stream.on("error", () => undefined);
    await once(stream, "response");
    turns.held = true;
    void flood(session);
    await eventually("many wait", () => turns.came.length > MOST_WAITING);
    const ponged = new Promise<Error | null>((resolve) => session.ping((error) => resolve(error)));
    stream.write(beat);
    expect(await ponged).toBeNull();
    await eventually("the beat is read", () => listeners.seen.beats.length === 1, 20_000);
    session.destroy();
    await eventually("nothing is left", () => listeners.gate.open === 0 && listeners.seen.openHandlers === 0);
  }, 40_000);

  test("drops a paused connection whose client disconnects", async () => {
    const turns = new HeldTurns();
    await using listeners = await startListeners({ scheduler: turns });
    const session = await http2Connect(addressOf(listeners));
    turns.held = true;
    void flood(session);
    await eventually("many wait", () => turns.came.length > MOST_WAITING);
    session.destroy();
    // The end of the connection is behind all that it has sent.
    await eventually("the connection is gone", () => listeners.gate.open === 0, 20_000);
    const began = listeners.seen.signals.length;
    turns.release();
    const other = await http2Connect(addressOf(listeners));
    const { response, stream } = http2Call(other, GET_AGENT, GRPC);
    stream.end(asking);
    expect((await response).trailers.get("grpc-status")).toBe("0");
    expect(listeners.seen.signals.length).toBe(began + 1);
    other.destroy();
  }, 40_000);
});

test("pipelined requests of HTTP/1.1 take turns, and are answered in order", async () => {
  const turns = new HeldTurns();
  await using listeners = await startListeners({ scheduler: turns });
  turns.held = true;
  const socket = await tcp(listeners.connectAddress);
  let text = "";
  socket.setEncoding("utf8").on("data", (more: string) => {
    text += more;
  });
  const pages = Array.from({ length: 50 }, (_, n) => (n % 2 === 0 ? "/healthz" : "/elsewhere"));
  socket.write(pages.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join(""));
  await eventually("all wait", () => turns.came.length === pages.length);
  expect(text).toBe("");
  turns.release();
  const statuses = (): string[] => [...text.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status = ""]) => status);
  await eventually("all are answered", () => statuses().length === pages.length);
  expect(statuses()).toEqual(pages.map((path) => (path === "/healthz" ? "200" : "404")));
  socket.destroy();
});
