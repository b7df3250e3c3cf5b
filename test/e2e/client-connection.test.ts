import { once } from "node:events";
import { createServer as createHttp2Server } from "node:http2";
import { createServer, type Socket } from "node:net";
import { ConnectError } from "@connectrpc/connect";
import { createServiceClients } from "harborforge-agents-client";
import { expect, onTestFinished, test, vi } from "vitest";
import { portOf } from "../support/fault-proxy.ts";
import {
  ACK,
  DATA,
  END_HEADERS,
  frame,
  GOAWAY,
  HEADERS,
  headerBlock,
  PING,
  PUSH_PROMISE,
  RST_STREAM,
  SETTINGS,
} from "../support/http2-frames.ts";

/** A client's calls end with an error of the call. Any other error from the library is counted here. */
function watchProcess() {
  const escaped: unknown[] = [];
  const listener = (error: unknown): void => void escaped.push(error);
  for (const name of ["uncaughtException", "unhandledRejection", "warning"] as const) {
    process.on(name, listener);
    onTestFinished(() => void process.off(name, listener));
  }
  return escaped;
}

/** A server with faulty behaviour. @returns `host:port` */
async function misbehave(behave: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    behave(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return `127.0.0.1:${portOf(server)}`;
}

async function calls(address: string, count = 5): Promise<unknown[]> {
  const service = createServiceClients({ address });
  onTestFinished(() => service.close());
  const outcomes: unknown[] = [];
  for (let call = 0; call < count; call += 1) {
    const both = [service.agents.getFleet({}, { timeoutMs: 500 }), service.agents.getFleet({}, { timeoutMs: 500 })];
    for (const { status } of await Promise.allSettled(both)) outcomes.push(status);
    if (call % 2 === 1) service.reconnect();
  }
  await new Promise((resolve) => setImmediate(resolve));
  return outcomes;
}

const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const goAway = (code: number, text = ""): Buffer =>
  frame(GOAWAY, 0, 0, Buffer.concat([uint32(0), uint32(code), Buffer.from(text)]));
const pushed = Buffer.concat([uint32(2), headerBlock({ ":method": "GET", ":scheme": "http", ":path": "/" })]);
const hello = frame(SETTINGS, 0, 0);
const answered = headerBlock({ ":status": "200", "content-type": "application/grpc", odd: "\u00ff\u0080\u00fe" });

test.each<[string, (socket: Socket) => void]>([
  ["resets every connection", (socket) => socket.resetAndDestroy()],
  ["closes every connection", (socket) => socket.destroy()],
  ["resets what it has read from", (socket) => socket.once("data", () => socket.resetAndDestroy())],
  ["speaks another protocol", (socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")],
  ["says nothing", () => undefined],
  ["goes away at once", (socket) => socket.end(Buffer.concat([hello, goAway(0)]))],
  ["goes away with an error", (socket) => socket.write(Buffer.concat([hello, goAway(2)]))],
  ["complains of pings", (socket) => socket.write(Buffer.concat([hello, goAway(11, "too_many_pings")]))],
  ["answers pings that nobody sent", (socket) => socket.write(frame(PING, ACK, 0, Buffer.alloc(8)))],
  [
    "pushes what nobody asked for, and resets it",
    (socket) =>
      socket.once("data", () => {
        const reset = frame(RST_STREAM, 0, 2, uint32(2));
        socket.write(Buffer.concat([hello, frame(PUSH_PROMISE, END_HEADERS, 1, pushed), reset]));
      }),
  ],
  [
    "resets every stream",
    (socket) => socket.on("data", () => socket.write(Buffer.concat([hello, frame(RST_STREAM, 0, 1, uint32(11))]))),
  ],
  [
    "returns unusual headers, and breaks off in a message",
    (socket) =>
      socket.once("data", () => {
        const data = frame(DATA, 0, 1, Buffer.from([0, 0, 0, 1, 0, 7]));
        socket.write(Buffer.concat([hello, frame(HEADERS, END_HEADERS, 1, answered), data]), () =>
          socket.resetAndDestroy(),
        );
      }),
  ],
])("a server that %s fails the calls, without further effect on the host program", async (_, behave) => {
  const escaped = watchProcess();
  const outcomes = await calls(await misbehave(behave));
  expect(new Set(outcomes)).toEqual(new Set(["rejected"]));
  expect(escaped).toEqual([]);
});

test("a connection that is closed while it opens rejects its waiting calls, and the next call opens another", async () => {
  const escaped = watchProcess();
  const server = createHttp2Server((_request, response) => {
    response.writeHead(200, { "content-type": "application/grpc", "grpc-status": "12" }).end();
  });
  const opened = vi.fn();
  server.on("session", opened).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const service = createServiceClients({ address: `127.0.0.1:${portOf(server)}` });
  const ask = () =>
    service.agents.getFleet({}).then(
      () => "answered",
      (error: unknown) => ConnectError.from(error).rawMessage,
    );
  for (let round = 0; round < 20; round += 1) {
    const asked = ask();
    // After none, one, two … turns of the microtask queue and of the event loop.
    for (let turn = 0; turn < round % 5; turn += 1) await undefined;
    if (round >= 10) await new Promise((resolve) => setImmediate(resolve));
    service.reconnect();
    await asked;
  }
  // The server returns that it does not know the method: the connection works.
  expect(await ask()).not.toMatch(/given up/);
  service.close();
  await new Promise((resolve) => setImmediate(resolve));
  expect(escaped).toEqual([]);
  expect(opened).toHaveBeenCalled();
});
