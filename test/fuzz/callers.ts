import { once } from "node:events";
import { Agent, request as httpRequest } from "node:http";
import http2, { type ClientHttp2Session, type IncomingHttpHeaders } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { endStreamFromJson, errorFromJsonBytes } from "@connectrpc/connect/protocol-connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { trailerParse } from "@connectrpc/connect/protocol-grpc-web";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import type { Role } from "../../src/domain/principal.ts";
import { tailOf } from "./credentials.ts";

export type Protocol = "grpc" | "grpc-web" | "connect" | "connect-stream" | "connect-get";

/** An input: a valid call, or one that resembles a call. */
export interface Attempt {
  readonly address: string;
  readonly http: 1 | 2;
  readonly protocol: Protocol;
  readonly json: boolean;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** The raw bytes, with envelopes. */
  readonly body: Uint8Array;
  /** How long the answer is waited for, in milliseconds; a stream is then cancelled. */
  readonly withinMs: number;
  readonly streams: boolean;
  /** With required credentials: the called method and its caller; undefined for an unknown caller. */
  readonly method?: DescMethod;
  readonly role?: Role | undefined;
}

/** The response. */
export type Answer =
  | { readonly kind: "ok" }
  | { readonly kind: "refused"; readonly code: Code; readonly hasReason: boolean; readonly message: string }
  /** An HTTP status and no error of the protocol. */
  | { readonly kind: "http"; readonly status: number }
  /** A stream that was going on well when it was cancelled. */
  | { readonly kind: "going-on" }
  | { readonly kind: "cut"; readonly why: string }
  /** The response contains the caller's credential. */
  | { readonly kind: "leak" }
  | { readonly kind: "silent" };

interface Raw {
  readonly status: number;
  readonly headers: Headers;
  readonly trailers: Headers;
  readonly body: Buffer;
}

/** Connections to both listeners, opened as they are needed, and again when one was ended. */
export class Callers {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 32 });
  readonly #sessions = new Map<string, ClientHttp2Session>();

  async make(attempt: Attempt): Promise<Answer> {
    let raw: Raw | "silent" | "going-on";
    try {
      raw = attempt.http === 1 ? await this.#http1(attempt) : await this.#http2(attempt);
    } catch (error) {
      return { kind: "cut", why: error instanceof Error ? error.message : String(error) };
    }
    if (raw === "silent" || raw === "going-on") return { kind: raw };
    const secret = tailOf(attempt.headers?.authorization ?? "");
    if (secret !== undefined && textOf(raw).includes(secret)) return { kind: "leak" };
    return read(raw);
  }

  close(): void {
    this.#agent.destroy();
    for (const session of this.#sessions.values()) session.destroy();
  }

  #session(address: string): ClientHttp2Session {
    const open = this.#sessions.get(address);
    if (open !== undefined && !open.closed && !open.destroyed) return open;
    const session = http2.connect(`http://${address}`);
    session.on("error", () => undefined);
    this.#sessions.set(address, session);
    return session;
  }

  #http2(attempt: Attempt): Promise<Raw | "silent" | "going-on"> {
    const stream = this.#session(attempt.address).request({
      ":method": attempt.protocol === "connect-get" ? "GET" : "POST",
      ":path": attempt.path,
      te: "trailers",
      ...headersOf(attempt),
    });
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let head: IncomingHttpHeaders = {};
      let trailers: IncomingHttpHeaders = {};
      const timer = setTimeout(() => {
        resolve(attempt.streams ? "going-on" : "silent");
        stream.close(http2.constants.NGHTTP2_CANCEL);
      }, attempt.withinMs);
      stream.on("response", (headers) => {
        head = headers;
      });
      stream.on("trailers", (headers: IncomingHttpHeaders) => {
        trailers = headers;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", reject);
      stream.on("close", () => {
        clearTimeout(timer);
        if (head[":status"] === undefined) return reject(new Error(`stream closed with ${stream.rstCode}`));
        resolve({
          status: Number(head[":status"]),
          headers: webHeaders(head),
          trailers: webHeaders(trailers),
          body: Buffer.concat(chunks),
        });
        return undefined;
      });
      stream.end(attempt.protocol === "connect-get" ? undefined : attempt.body);
    });
  }

  #http1(attempt: Attempt): Promise<Raw | "silent" | "going-on"> {
    return new Promise((resolve, reject) => {
      const req = httpRequest(
        `http://${attempt.address}${attempt.path}`,
        {
          method: attempt.protocol === "connect-get" ? "GET" : "POST",
          headers: { ...headersOf(attempt) },
          agent: this.#agent,
        },
        (res) => {
          const chunks: Buffer[] = [];
          res.on("data", (chunk: Buffer) => chunks.push(chunk));
          res.on("error", reject);
          res.on("end", () => {
            clearTimeout(timer);
            resolve({
              status: res.statusCode ?? 0,
              headers: webHeaders(res.headers),
              trailers: webHeaders(res.trailers),
              body: Buffer.concat(chunks),
            });
          });
        },
      );
      const timer = setTimeout(() => {
        resolve(attempt.streams ? "going-on" : "silent");
        req.destroy();
      }, attempt.withinMs);
      req.on("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
      req.end(attempt.protocol === "connect-get" ? undefined : attempt.body);
    });
  }
}

function headersOf({ protocol, json, headers }: Attempt): Record<string, string> {
  if (protocol === "connect-get") return { ...headers };
  const type = {
    grpc: "application/grpc",
    "grpc-web": "application/grpc-web",
    connect: json ? "application/json" : "application/proto",
    "connect-stream": json ? "application/connect+json" : "application/connect+proto",
  }[protocol];
  const own = json && protocol.startsWith("grpc") ? `${type}+json` : type;
  return { "content-type": own, ...headers };
}

function webHeaders(from: IncomingHttpHeaders): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(from)) {
    if (!name.startsWith(":") && value !== undefined) headers.set(name, String(value));
  }
  return headers;
}

/** The whole response, with its encoded parts. */
function textOf({ headers, trailers, body }: Raw): string {
  const fields = [...headers, ...trailers].flatMap(([, value]) => [
    value,
    Buffer.from(value, "base64").toString("latin1"),
  ]);
  const inBody = body.toString("latin1").match(/[A-Za-z0-9+/]{40,}/g) ?? [];
  const decoded = inBody.map((text) => Buffer.from(text, "base64").toString("latin1"));
  return [body.toString("latin1"), ...fields, ...decoded].join("\n");
}

function read(raw: Raw): Answer {
  const type = raw.headers.get("content-type") ?? "";
  let error: ConnectError | undefined;
  if (type.startsWith("application/grpc-web")) {
    const last = lastEnvelope(raw.body, 0x80);
    if (last === undefined) return { kind: "cut", why: "no trailers in the body" };
    error = findTrailerError(trailerParse(last));
  } else if (type.startsWith("application/grpc")) {
    const trailers = raw.headers.has("grpc-status") ? raw.headers : raw.trailers;
    if (!trailers.has("grpc-status")) return { kind: "cut", why: "no trailers" };
    error = findTrailerError(trailers);
  } else if (type.startsWith("application/connect+")) {
    const last = lastEnvelope(raw.body, 0x02);
    if (last === undefined) return { kind: "cut", why: "no end of stream" };
    error = endStreamFromJson(last).error;
  } else if (raw.status !== 200) {
    if (!type.startsWith("application/json")) return { kind: "http", status: raw.status };
    error = errorFromJsonBytes(raw.body, undefined, new ConnectError("unreadable", Code.Unknown));
  }
  if (error === undefined) return { kind: "ok" };
  return {
    kind: "refused",
    code: error.code,
    hasReason: error.findDetails(ErrorInfoSchema).length === 1,
    message: error.rawMessage,
  };
}

/** The content of the envelope that ends a stream, which is the last one. */
function lastEnvelope(body: Buffer, flag: number): Buffer | undefined {
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    if ((body.readUInt8(at) & flag) !== 0) return body.subarray(at + 5, end);
    at = end;
  }
  return undefined;
}

/** Whether an unused connection accepts a call: earlier inputs had no effect on it. */
export async function isServing(address: string, authorization?: string): Promise<boolean> {
  const session = http2.connect(`http://${address}`);
  session.on("error", () => undefined);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": "/harborforge.agents.v1.AgentService/GetFleet",
      "content-type": "application/grpc",
      te: "trailers",
      ...(authorization === undefined ? {} : { authorization }),
    });
    const trailers = once(stream, "trailers", { signal: AbortSignal.timeout(10_000) });
    stream.on("error", () => undefined);
    stream.resume().end(Buffer.alloc(5));
    const [{ "grpc-status": status }] = await trailers;
    return status === "0";
  } catch {
    return false;
  } finally {
    session.destroy();
  }
}
