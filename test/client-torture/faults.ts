import { setTimeout as sleep } from "node:timers/promises";
import type { ReplicaProcess } from "../chaos/replica-process.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";
import { ACK, END_HEADERS, frame, GOAWAY, PING, PUSH_PROMISE, RST_STREAM } from "../support/http2-frames.ts";
import type { Host } from "./host.ts";
import type { SocketFault } from "./messages.ts";

/** Where a fault happens. */
export interface Place {
  readonly host: Host;
  readonly proxy: FaultProxy;
  readonly proxies: readonly FaultProxy[];
  readonly replica: ReplicaProcess;
}

interface Fault extends Place {
  readonly ms: number;
  /** In [0, 1): which of the fault's forms it is. */
  readonly detail: number;
  readonly longestMs: number;
}

const SOCKET_FAULTS: readonly SocketFault[] = [
  "socket",
  "socket-error",
  "session",
  "session-error",
  "go-away",
  "worker",
];
/** Connections that are silent for this long are asked by pings. */
const QUIET_MS = 16_000;
const DOWN_MS = 1_500;

/** Frames as a server sends them (RFC 9113), of connection errors and of an orderly end. */
const FRAMES: readonly Buffer[] = [
  goAway(0, ""),
  goAway(11, "too_many_pings"),
  goAway(2, ""),
  frame(RST_STREAM, 0, 1, uint32(8)),
  frame(RST_STREAM, 0, 1, uint32(2)),
  frame(RST_STREAM, 0, 3, uint32(11)),
  // A PING answer without a ping, PUSH_PROMISE though push is off, and an invalid frame.
  frame(PING, ACK, 0, Buffer.alloc(8)),
  frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), Buffer.from([0x82])])),
  Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
];

/** Each resolves when the fault is over. */
export const FAULTS = {
  async stall({ host, ms }) {
    host.order({ kind: "stall", ms, at: "now" });
    await sleep(ms);
  },
  async "stall-at-ping"({ host, ms }) {
    host.order({ kind: "stall", ms, at: "ping" });
    host.order({ kind: "quiet", ms: QUIET_MS + ms });
    await sleep(QUIET_MS + ms);
  },
  freeze: ({ host, ms }) => host.freeze(ms),
  async drop({ proxies }) {
    for (const proxy of proxies) proxy.drop();
  },
  /** Open connections carry nothing any more; half of the time they never do again. */
  async "half-open"({ proxy, ms, detail }) {
    proxy.stall();
    await sleep(ms);
    if (detail < 0.5) proxy.resume();
  },
  async swallow({ proxies, ms }) {
    for (const proxy of proxies) proxy.swallow();
    await sleep(ms);
    for (const proxy of proxies) proxy.mend();
  },
  async cut({ proxies, ms }) {
    for (const proxy of proxies) proxy.cut();
    await sleep(ms);
    for (const proxy of proxies) proxy.mend();
  },
  async break({ host, detail }) {
    host.order({ kind: "break", how: pick(SOCKET_FAULTS, detail) });
  },
  /** Connections break while the event loop is blocked, so that all of it is met in one turn. */
  async "break-while-stalled"({ host, proxies, ms, detail }) {
    host.order({ kind: "stall", ms, at: "now" });
    await sleep(ms / 2);
    for (const proxy of proxies) {
      proxy.inject(pick(FRAMES, detail));
      proxy.drop();
    }
    host.order({ kind: "break", how: pick(SOCKET_FAULTS, detail) });
    await sleep(ms / 2);
  },
  async frames({ proxies, detail }) {
    for (const proxy of proxies) proxy.inject(pick(FRAMES, detail));
  },
  async restart({ replica }) {
    await replica.terminate();
    replica.start();
    await replica.serving();
  },
  async kill({ replica, ms }) {
    await replica.kill();
    await sleep(Math.min(ms, DOWN_MS));
    replica.start();
    await replica.serving();
  },
  async "freeze-server"({ replica, ms }) {
    replica.freeze();
    await sleep(ms);
    replica.thaw();
  },
} satisfies Readonly<Record<string, (fault: Fault) => Promise<void>>>;

export type FaultName = keyof typeof FAULTS;

function pick<Item>(items: readonly Item[], detail: number): Item {
  const item = items[Math.floor(detail * items.length)];
  if (item === undefined) throw new RangeError("nothing to pick from");
  return item;
}

function goAway(code: number, data: string): Buffer {
  return frame(GOAWAY, 0, 0, Buffer.concat([uint32(0x7fffffff), uint32(code), Buffer.from(data)]));
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
