import { once } from "node:events";
import { request as httpRequest } from "node:http";
import http2, { type ClientHttp2Session, type IncomingHttpHeaders } from "node:http2";
import { connect, type Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { endStreamFromJson, errorFromJsonBytes } from "@connectrpc/connect/protocol-connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { trailerParse } from "@connectrpc/connect/protocol-grpc-web";

/** The response, for any protocol. */
export interface RawResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  readonly trailers: Headers;
}

function toHeaders(raw: IncomingHttpHeaders | NodeJS.Dict<string | string[]>): Headers {
  const headers = new Headers();
  for (const [key, value] of Object.entries(raw)) {
    if (!key.startsWith(":") && value !== undefined) headers.set(key, String(value));
  }
  return headers;
}

/** A request over HTTP/1.1, on a connection of its own. */
export function http1(
  address: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: Uint8Array | string } = {},
): Promise<RawResponse> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(
      `http://${address}${path}`,
      { method: options.method ?? "POST", headers: options.headers ?? {}, agent: false },
      (res) => {
        const chunks: Buffer[] = [];
        res.on("data", (chunk: Buffer) => chunks.push(chunk));
        res.on("error", reject);
        res.on("end", () =>
          resolve({
            status: res.statusCode ?? 0,
            headers: toHeaders(res.headers),
            body: Buffer.concat(chunks),
            trailers: toHeaders(res.trailers),
          }),
        );
      },
    );
    req.on("error", reject);
    req.end(options.body);
  });
}

export interface Http2Call {
  readonly response: Promise<RawResponse>;
  readonly stream: http2.ClientHttp2Stream;
}

/** A connection of Node's own HTTP/2 client, which sends any request. */
export async function http2Connect(address: string): Promise<ClientHttp2Session> {
  const session = http2.connect(`http://${address}`);
  session.on("error", () => undefined);
  await once(session, "connect");
  return session;
}

/** A request on it. The request stays open until its stream is ended. */
export function http2Call(session: ClientHttp2Session, path: string, headers: Record<string, string>): Http2Call {
  const stream = session.request({ ":method": "POST", ":path": path, te: "trailers", ...headers });
  const response = new Promise<RawResponse>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let head: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    stream.on("response", (received) => {
      head = received;
    });
    stream.on("trailers", (received: IncomingHttpHeaders) => {
      trailers = received;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () =>
      resolve({
        status: Number(head[":status"]),
        headers: toHeaders(head),
        body: Buffer.concat(chunks),
        trailers: toHeaders(trailers),
      }),
    );
  });
  response.catch(() => undefined);
  return { response, stream };
}

/** A gRPC frame around a message. */
export function envelope(message: Uint8Array | string, flags = 0): Buffer {
  const bytes = Buffer.from(message);
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** The error in a response, by its protocol, which the content type names. */
export function errorIn(response: RawResponse): ConnectError {
  const type = response.headers.get("content-type") ?? "";
  let error: ConnectError | undefined;
  if (type.startsWith("application/grpc-web")) {
    error = findTrailerError(trailerParse(response.body.subarray(5)));
  } else if (type.startsWith("application/grpc")) {
    error = findTrailerError(response.headers.has("grpc-status") ? response.headers : response.trailers);
  } else if (type.startsWith("application/connect+")) {
    error = endStreamFromJson(response.body.subarray(5)).error;
  } else {
    error = errorFromJsonBytes(response.body, undefined, new ConnectError(`no error: ${response.body}`, Code.Unknown));
  }
  if (error === undefined) throw new Error("the call went well");
  return error;
}

/** A bare TCP connection. */
export async function tcp(address: string): Promise<Socket> {
  const [host, port] = address.split(":");
  const socket = connect(Number(port), host);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}
