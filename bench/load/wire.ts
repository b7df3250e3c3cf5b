/** A minimal gRPC client for measurements, which does little itself. It decodes messages only on request. */
import http2 from "node:http2";
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { AgentService, type WatchAgentsRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

/** Large enough that the server never waits for it. */
const WINDOW_BYTES = 8 * 1_024 * 1_024;
const CHANGES_FIELD = 3;
const SNAPSHOT_FIELD = 2;
const BOOKMARK_FIELD = 4;

/** @param windowBytes how much the server may send before the client reads */
export function connect(base: string, windowBytes = WINDOW_BYTES): http2.ClientHttp2Session {
  const session = http2.connect(base, { settings: { initialWindowSize: windowBytes }, maxSessionMemory: 1_000 });
  session.on("connect", () => session.setLocalWindowSize(windowBytes));
  session.setMaxListeners(0);
  return session;
}

/** Makes a unary call. */
export async function callUnary<Method extends DescMethod>(
  session: http2.ClientHttp2Session,
  method: Method,
  request: MessageInitShape<Method["input"]>,
): Promise<MessageShape<Method["output"]>> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const stream = send(session, method, toBinary(method.input, create(method.input, request)));
  const chunks: Buffer[] = [];
  let status = "";
  stream.on("response", (headers) => {
    status = refusalOf(headers);
  });
  stream.on("trailers", (headers) => {
    status = refusalOf(headers);
  });
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  stream.on("error", reject);
  stream.on("end", () => {
    if (status !== "") reject(new Error(status));
    else resolve(Buffer.concat(chunks).subarray(5));
  });
  return fromBinary<Method["output"]>(method.output, await promise);
}

/** The error of a response; empty: there is none. */
function refusalOf(headers: http2.IncomingHttpHeaders): string {
  const code = headers["grpc-status"];
  return code === undefined || code === "0" ? "" : `status ${code}: ${headers["grpc-message"]}`;
}

/** What a watcher has received so far. */
export interface Count {
  changes: number;
  snapshotAgents: number;
  messages: number;
  bookmarks: number;
  bytes: number;
}

export interface CountingWatch {
  readonly count: Count;
  readonly stream: http2.ClientHttp2Stream;
}

/**
 * Opens a watch and counts its events.
 *
 * @param onProgress called after each received chunk
 * @param onRefusal called when the server ended the watch; default: an uncaught error
 */
export function openCountingWatch(
  session: http2.ClientHttp2Session,
  request: MessageInitShape<typeof WatchAgentsRequestSchema>,
  onProgress: (count: Count) => void = () => undefined,
  onRefusal: (refusal: string) => void = complain,
): CountingWatch {
  const { input } = AgentService.method.watchAgents;
  const stream = send(session, AgentService.method.watchAgents, toBinary(input, create(input, request)));
  const count: Count = { changes: 0, snapshotAgents: 0, messages: 0, bookmarks: 0, bytes: 0 };
  const scan = scanner(count);
  stream.on("data", (chunk: Buffer) => {
    scan(chunk);
    onProgress(count);
  });
  for (const part of ["response", "trailers"]) {
    stream.on(part, (headers: http2.IncomingHttpHeaders) => {
      const refusal = refusalOf(headers);
      if (refusal !== "") onRefusal(refusal);
    });
  }
  stream.on("error", (error) => {
    if (!session.closed && !session.destroyed && !stream.aborted) throw error;
  });
  return { count, stream };
}

function complain(refusal: string): never {
  throw new Error(`a watch ended: ${refusal}`);
}

/** Begins a call without sending a message. */
export function openStream(session: http2.ClientHttp2Session, method: DescMethod): http2.ClientHttp2Stream {
  return session.request({
    ":method": "POST",
    ":path": `/${method.parent.typeName}/${method.name}`,
    "content-type": "application/grpc",
    te: "trailers",
  });
}

/** A gRPC frame: the compression flag (off), the length, and the message. */
export function framed(message: Uint8Array): Buffer {
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
}

/** Splits chunks into messages. */
export function unframer(onMessage: (message: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      const message = rest.subarray(5, end);
      rest = rest.subarray(end);
      onMessage(message);
    }
  };
}

function send(session: http2.ClientHttp2Session, method: DescMethod, message: Uint8Array): http2.ClientHttp2Stream {
  const stream = openStream(session, method);
  stream.end(framed(message));
  return stream;
}

/** Parses frames and their outermost fields from arbitrary chunks. Skips nested contents. */
function scanner(count: Count): (chunk: Buffer) => void {
  let head = 0;
  let length = 0;
  let left = 0;
  let skip = 0;
  let part: "tag" | "varint" | "length" = "tag";
  let number = 0;
  let shift = 0;
  let field = 0;
  return (chunk) => {
    count.bytes += chunk.length;
    let at = 0;
    while (at < chunk.length) {
      if (left === 0) {
        // The head of the frame: a flag and four bytes of length.
        const byte = chunk[at++] ?? 0;
        length = head === 0 ? 0 : length * 256 + byte;
        head += 1;
        if (head < 5) continue;
        head = 0;
        left = length;
        count.messages += 1;
        continue;
      }
      if (skip > 0) {
        const some = Math.min(skip, chunk.length - at);
        at += some;
        skip -= some;
        left -= some;
        continue;
      }
      const byte = chunk[at++] ?? 0;
      left -= 1;
      number += (byte & 0x7f) * 2 ** shift;
      shift += 7;
      if (byte >= 0x80) continue;
      const value = number;
      number = 0;
      shift = 0;
      if (part === "tag") {
        field = value >>> 3;
        part = (value & 7) === 2 ? "length" : "varint";
        if (field === CHANGES_FIELD) count.changes += 1;
        else if (field === SNAPSHOT_FIELD) count.snapshotAgents += 1;
        else if (field === BOOKMARK_FIELD) count.bookmarks += 1;
      } else {
        if (part === "length") skip = value;
        part = "tag";
      }
    }
  };
}
