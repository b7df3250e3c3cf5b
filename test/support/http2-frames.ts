import type { Socket } from "node:net";
import { tcp } from "./rpc-raw.ts";

// HTTP/2 that no client sends: frames by hand (RFC 9113), in any order.

export const DATA = 0;
export const HEADERS = 1;
export const PRIORITY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PUSH_PROMISE = 5;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream >>> 0, 5);
  return Buffer.concat([head, payload]);
}

/** A header block without compression. */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of Object.entries(headers)) {
    parts.push(Buffer.from([0]), text(name), text(value));
  }
  return Buffer.concat(parts);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  const length: number[] = [];
  if (bytes.length < 127) {
    length.push(bytes.length);
  } else {
    length.push(127);
    let rest = bytes.length - 127;
    for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

/** The headers of a gRPC call. */
export function grpcHeaders(path: string, more: Readonly<Record<string, string>> = {}): Record<string, string> {
  return {
    ":method": "POST",
    ":scheme": "http",
    ":path": path,
    ":authority": "localhost",
    "content-type": "application/grpc",
    te: "trailers",
    ...more,
  };
}

export interface RawHttp2 {
  readonly socket: Socket;
  /** The received frames, by type and stream. */
  readonly received: {
    readonly type: number;
    readonly flags: number;
    readonly stream: number;
    readonly payload: Buffer;
  }[];
  /** Resolves when the other end has closed the connection. */
  readonly closed: Promise<void>;
  readonly isClosed: boolean;
  /** Writes all of it, and waits when the other end reads slower. */
  send(...frames: readonly Uint8Array[]): Promise<void>;
}

/** A connection of its own, after the preface and the settings. Answers nothing by itself. */
export async function rawHttp2(address: string): Promise<RawHttp2> {
  const socket = await tcp(address);
  const received: RawHttp2["received"] = [];
  let unread: Buffer = Buffer.alloc(0);
  let isClosed = false;
  const closed = new Promise<void>((resolve) =>
    socket.once("close", () => {
      isClosed = true;
      resolve();
    }),
  );
  socket.on("data", (chunk: Buffer) => {
    unread = Buffer.concat([unread, chunk]);
    while (unread.length >= 9) {
      const length = unread.readUIntBE(0, 3);
      if (unread.length < 9 + length) break;
      received.push({
        type: unread.readUInt8(3),
        flags: unread.readUInt8(4),
        stream: unread.readUInt32BE(5) & 0x7fff_ffff,
        payload: Buffer.from(unread.subarray(9, 9 + length)),
      });
      unread = unread.subarray(9 + length);
    }
  });
  const connection: RawHttp2 = {
    socket,
    received,
    closed,
    get isClosed() {
      return isClosed;
    },
    send: async (...frames) => {
      for (const bytes of frames) {
        if (isClosed || socket.destroyed) return;
        if (!socket.write(bytes)) {
          await Promise.race([closed, new Promise<void>((resolve) => socket.once("drain", resolve))]);
        }
      }
    },
  };
  await connection.send(PREFACE, frame(SETTINGS, 0, 0));
  return connection;
}
