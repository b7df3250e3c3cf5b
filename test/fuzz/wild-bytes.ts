import { connect } from "node:net";
import type { Random } from "../chaos/random.ts";
import * as frames from "../support/http2-frames.ts";
import { frame, grpcHeaders, headerBlock } from "../support/http2-frames.ts";
import { mutated, randomBytes } from "./hostile-values.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";

const HTTP1 = Buffer.from(
  `POST ${GET_AGENT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{"agentId":"fuzz"}`,
);

/** Bytes for a connection of their own: noise, HTTP/1.1 or HTTP/2 with something wrong in it. */
export function wildBytes(random: Random): Uint8Array {
  const kind = random.next();
  if (kind < 0.15) return randomBytes(random, 400);
  if (kind < 0.4) return mutated(HTTP1, random);
  const start = [frames.PREFACE, frame(frames.SETTINGS, 0, 0)];
  if (kind < 0.6) {
    const call = [
      ...start,
      frame(frames.HEADERS, frames.END_HEADERS, 1, headerBlock(grpcHeaders(GET_AGENT))),
      frame(frames.DATA, frames.END_STREAM, 1, Buffer.alloc(5)),
    ];
    return mutated(Buffer.concat(call), random);
  }
  const count = Math.floor(random.between(1, 12));
  return Buffer.concat([...start, ...Array.from({ length: count }, () => randomFrame(random))]);
}

function randomFrame(random: Random): Buffer {
  const stream = random.pick([0, 1, 1, 1, 2, 3, 5, 0x7fff_ffff]);
  const flags = random.pick([0, frames.END_STREAM, frames.END_HEADERS, 0x5, 0x8, 0x20, 0xff]);
  const type = random.pick([0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xfa]);
  if (type === frames.HEADERS && random.chance(0.8)) {
    const headers = grpcHeaders(random.pick([GET_AGENT, "/", "*", "", "/a/b", `${GET_AGENT}?x=%`]), {
      [random.pick(["x-a", "X-Upper", "connection", ":path", ":status", "te", "content-length", "grpc-timeout", "\0"])]:
        random.pick(["1", "close", "\r\n", "\0", "99999999999999999999", "5S"]),
    });
    const block = headerBlock(headers);
    return frame(type, flags, stream, random.chance(0.3) ? mutated(block, random) : block);
  }
  return frame(type, flags, stream, randomBytes(random, random.chance(0.1) ? 2_000 : 16));
}

/** Sends the bytes, and waits for the connection's end; closes it when the server does not. */
export function sendWildBytes(address: string, bytes: Uint8Array, withinMs: number): Promise<Buffer> {
  const [host, port] = address.split(":");
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), host, () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), withinMs);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => undefined);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve(Buffer.concat(chunks));
    });
  });
}

/** The status of an answer in HTTP/1.1; undefined for anything else. */
export function http1Status(answer: Buffer): number | undefined {
  const match = /^HTTP\/1\.1 (\d{3}) /.exec(answer.toString("latin1", 0, 20));
  return match === null ? undefined : Number(match[1]);
}
