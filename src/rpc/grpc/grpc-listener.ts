import { constants, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer, type Socket } from "node:net";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, type ServiceImplSpec } from "@connectrpc/connect";
import type { ServerInterceptor } from "@grpc/grpc-js";
import {
  createGrpcBridge,
  createGrpcJsServer,
  errorStatus,
  explainedStatus,
  type GrpcStatus,
  type ResponseCompression,
} from "@harborforge/connect-grpc-js";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import type { Logger } from "../../../common/logging/logger.ts";
import { LONGEST_TIMER_MS } from "../../../common/scheduling/timers.ts";
import type { Refusal } from "../../domain/errors.ts";
import { peerKey } from "../callers/call-values.ts";
import { Peers } from "../callers/peers.ts";
import { noSuchMethod } from "../errors/did-you-mean.ts";
import { fromLibrary, fromRefusal, toConnectError } from "../errors/error-table.ts";
import { refuseAmbiguous } from "../sockets/ambiguous-authorization.ts";
import type { ConnectionGate } from "../sockets/connection-gate.ts";
import type { HostCheck } from "../sockets/host-check.ts";
import { createHttp2Sessions } from "../sockets/http2-sessions.ts";
import { DEFAULT_LISTENER_LIMITS, http2Options, type ListenerLimits } from "../sockets/limits.ts";
import { lingerThenReset } from "../sockets/linger.ts";
import { listen, SOCKET_OPTIONS } from "../sockets/listen.ts";
import type { Listener } from "../sockets/listener.ts";
import { type MessageInput, MessageQueue } from "../sockets/message-queue.ts";
import { NewStreams } from "../sockets/new-streams.ts";
import { DEFAULT_RECEIVE_LIMITS, ReceiveBudget, TOO_MUCH } from "../sockets/receive-budget.ts";
import { acceptsGzip, mayCompress } from "../sockets/response-compression.ts";
import { SendBudget, TOO_MUCH_UNREAD } from "../sockets/send-budget.ts";
import { ambiguousHeaders } from "../sockets/single-headers.ts";
import { StreamScheduler } from "../sockets/stream-scheduler.ts";
import type { Tls } from "../tls/tls-acceptor.ts";
import { takeOverMessages } from "./grpc-input.ts";
import { messageCodec } from "./message-codec.ts";

export interface GrpcListenerOptions {
  /** Wrapped by the pipeline. */
  readonly services: readonly ServiceImplSpec[];
  readonly log: Logger;
  /** Accepts or rejects connections. */
  readonly gate: ConnectionGate;
  /** Default: cleartext. */
  readonly tls?: Tls | undefined;
  readonly limits?: Partial<ListenerLimits>;
  /** Limits the bytes of unread requests. Default: one of the listener's own. */
  readonly budget?: ReceiveBudget;
  /** Limits the bytes of unread responses. Default: one of the listener's own. */
  readonly sendBudget?: SendBudget;
  /** The queue of compressed and large messages. Default: one of the listener's own, on `budget`. */
  readonly queue?: MessageQueue;
  /** Compresses responses. Default: none are compressed. */
  readonly compression?: ResponseCompression | undefined;
  /** Starts new calls. Default: one of the listener's own. */
  readonly scheduler?: StreamScheduler;
  /** Rejects requests that a page of another site may have sent. Default: none. */
  readonly hostCheck?: HostCheck | undefined;
}

/** A stream that grpc-js is given, and what its headers say about compression. */
interface OpeningStream {
  readonly stream: ServerHttp2Stream;
  /** Of the requests. */
  readonly encoding: string | undefined;
  /** For the responses. */
  readonly acceptsGzip: boolean;
}

/** Time to send a status before its stream is reset, in milliseconds. */
const STATUS_MS = 100;

/** The gRPC listener: HTTP/2, in cleartext or TLS, binary protobuf, on grpc-js. */
export function createGrpcListener(options: GrpcListenerOptions): Listener {
  const { services, log, gate, tls } = options;
  const limits = { ...DEFAULT_LISTENER_LIMITS, ...options.limits };
  const budget = options.budget ?? new ReceiveBudget({ ...DEFAULT_RECEIVE_LIMITS, messageMs: limits.requestMs });
  const sendBudget = options.sendBudget ?? new SendBudget();
  const queue = options.queue ?? new MessageQueue(budget);
  const bridge = createGrpcBridge(services, {
    codec: messageCodec,
    toError: toConnectError,
    requestTimeoutMs: limits.requestMs,
    writeTimeoutMs: limits.writeStallMs,
    freeHeaders: true,
  });
  const paths = new Map(
    services.flatMap(({ service }) =>
      service.methods.map((m): [string, DescMethod] => [`/${service.typeName}/${m.name}`, m]),
    ),
  );
  const peers = new Peers("grpc");
  const sessions = createHttp2Sessions(limits.pingIntervalMs);
  const newStreams = new NewStreams(options.scheduler ?? new StreamScheduler(), sessions, gate);
  const sockets = new Set<Socket>();

  // The stream that grpc-js is given now: it creates a call's interceptors within its stream listener.
  let openingStream: OpeningStream | undefined;

  /** Adds details to errors of grpc-js itself, and resets streams whose clients do not read the status. */
  const explain: ServerInterceptor = (method, call) => {
    const opening = openingStream;
    const stream = opening?.stream;
    const sendStatus = call.sendStatus.bind(call);
    call.sendStatus = (status) => {
      sendStatus(explainedStatus(status, fromLibrary));
      if (stream !== undefined) lingerThenReset(stream, limits.lingerMs);
    };
    let reject: ((error: ConnectError) => void) | undefined;
    if (stream !== undefined) {
      const input = (): MessageInput => inputOf(stream, paths.get(method.path));
      takeOverMessages(call, opening?.encoding, input, (error) => reject?.(error));
    }
    return bridge.serve(method, call, {
      isReset: () => stream === undefined || stream.aborted || stream.destroyed,
      contextValues: () => peers.valuesFor(stream?.session),
      sending: () => sendBudget.sending(stream?.session),
      compression:
        opening?.acceptsGzip === true && mayCompress(paths.get(method.path)) ? options.compression : undefined,
      onRejected: (listener) => {
        reject = listener;
        if (stream !== undefined) receive(stream, listener);
      },
    });
  };

  function inputOf(stream: ServerHttp2Stream, method: DescMethod | undefined): MessageInput {
    const input = queue.input(stream.session, peers.valuesFor(stream.session).get(peerKey).address, streamsIn(method));
    if (stream.closed) input.close();
    else stream.once("close", () => input.close());
    return input;
  }

  /** Counts the incomplete messages of a call. grpc-js has its own listener, and pauses and resumes the stream. */
  function receive(stream: ServerHttp2Stream, reject: (error: ConnectError) => void): void {
    const receiving = budget.request(stream.session, true, (error) => {
      reject(error);
      // Later bytes would be held, too. The status was sent before.
      setTimeout(() => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM), STATUS_MS).unref();
    });
    stream.on("data", (piece: Uint8Array) => receiving.add(piece));
    stream.once("close", () => receiving.close());
  }

  const grpc = createGrpcJsServer(
    {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": -1,
      // Channelz costs time for every message, and the pipeline counts metrics.
      "grpc.enable_channelz": 0,
      interceptors: [explain],
    },
    http2Options(limits),
  );
  bridge.register(grpc.server);

  grpc.http2Server.on("session", (session: ServerHttp2Session) => {
    peers.add(session, session.socket);
    sessions.add(session);
  });
  grpc.http2Server.on("sessionError", (error: Error) =>
    log.debug({ event: "connection.failed", listener: "grpc", err: error }, "gRPC connection failed"),
  );
  grpc.http2Server.on(
    "stream",
    (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, rawHeaders: readonly string[]) =>
      newStreams.take(stream, () => {
        refuseAmbiguous(headers, rawHeaders);
        serve(stream, headers, flags, ambiguousHeaders(rawHeaders, 2));
      }),
  );

  function serve(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    flags: number,
    ambiguous: Refusal | undefined,
  ): void {
    if (!speaksGrpc(stream, headers["content-type"])) return;
    const rejected = ambiguous ?? options.hostCheck?.(headers);
    const refusal =
      rejected === undefined
        ? (unknownMethod(paths, headers[":path"]) ?? clampTimeout(headers) ?? overLimit(stream, headers))
        : fromRefusal(rejected);
    if (refusal !== undefined) {
      respondStatus(stream, statusOf(refusal));
      return;
    }
    const encoding = headers["grpc-encoding"];
    openingStream = {
      stream,
      encoding: encoding === undefined ? undefined : String(encoding),
      acceptsGzip: acceptsGzip(headers["grpc-accept-encoding"]?.toString()),
    };
    try {
      grpc.serveStream(stream, headers, flags);
    } finally {
      openingStream = undefined;
    }
  }

  /** Rejects a call early, if the response or the request would exceed a budget of its connection. */
  function overLimit(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): ConnectError | undefined {
    const method = paths.get(headers[":path"] ?? "");
    if (method?.methodKind === "unary" && !sendBudget.hasCapacity(stream.session)) return TOO_MUCH_UNREAD;
    const encoding = headers["grpc-encoding"];
    if (encoding === undefined || encoding === "identity" || queue.budget.hasCapacity(stream.session)) return undefined;
    return streamsIn(method) ? undefined : TOO_MUCH;
  }

  const secure = tls?.acceptor({
    alpn: ["h2"],
    handshakeMs: limits.handshakeMs,
    onSecure: (socket) => {
      // HTTP/2 over TLS requires ALPN (RFC 9113, 3.2).
      if (socket.alpnProtocol === "h2") grpc.injector.injectConnection(socket);
      else socket.destroy();
    },
  });
  const listener = createServer(SOCKET_OPTIONS, (socket) => {
    if (!gate.admit(socket)) return;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    if (secure === undefined) grpc.injector.injectConnection(socket);
    else secure.accept(socket);
  });

  return {
    start: (address) => listen(listener, address, log),
    drain: async () => {
      listener.close();
      await sessions.drain();
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => {
        if (listener.listening) listener.close(() => resolve());
        else resolve();
      });
      sessions.close();
      for (const socket of sockets) socket.destroy();
      grpc.server.forceShutdown();
      await closed;
    },
  };
}

/** The statuses of errors that are made once. */
const statuses = new WeakMap<ConnectError, GrpcStatus>();

function statusOf(refusal: ConnectError): GrpcStatus {
  const known = statuses.get(refusal);
  if (known !== undefined) return known;
  const status = errorStatus(refusal);
  statuses.set(refusal, status);
  return status;
}

function streamsIn(method: DescMethod | undefined): boolean {
  return method?.methodKind === "bidi_streaming" || method?.methodKind === "client_streaming";
}

/**
 * Whether a call's content type is gRPC with binary protobuf; responds with 415 otherwise. grpc-js checks the prefix only: it would
 * read gRPC-Web, or gRPC with JSON, as binary gRPC, and fail with a misleading error.
 */
function speaksGrpc(stream: ServerHttp2Stream, contentType: string | undefined): boolean {
  if (contentType !== undefined && /^application\/grpc(\+proto)?\s*(;|$)/i.test(contentType)) return true;
  const text =
    "This port speaks only gRPC with binary protobuf (content-type: application/grpc). " +
    "The Connect listener, on HARBORFORGE_HTTP_ADDRESS, takes JSON and gRPC-Web, too.\n";
  stream.respond({ ":status": 415, "content-type": "text/plain; charset=utf-8" });
  stream.end(text);
  return false;
}

function respondStatus(stream: ServerHttp2Stream, status: GrpcStatus): void {
  stream.respond(
    {
      ":status": 200,
      "content-type": "application/grpc+proto",
      ...status.metadata?.toHttp2Headers(),
      "grpc-status": status.code ?? Code.Unknown,
      "grpc-message": encodeURIComponent(status.details ?? ""),
    },
    { endStream: true },
  );
  // Discards what the client still sends: unread, it would fill the window of the connection.
  stream.resume();
}

function unknownMethod(paths: ReadonlyMap<string, unknown>, path = ""): ConnectError | undefined {
  return paths.has(path) ? undefined : fromLibrary(Code.Unimplemented, noSuchMethod(path, paths.keys()));
}

const MS_PER_UNIT: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/**
 * Shortens a timeout beyond 24.8 days, which is legal: grpc-js computes timeouts in 32 bits, and it would fire at once. Returns an
 * error for a malformed one: grpc-js accepts a header that only contains a timeout.
 */
function clampTimeout(headers: IncomingHttpHeaders): ConnectError | undefined {
  const header = headers["grpc-timeout"];
  if (header === undefined) return undefined;
  const match = /^(\d{1,8})([HMSmun])$/.exec(String(header));
  const unit = MS_PER_UNIT[match?.[2] ?? ""];
  if (unit === undefined) return fromLibrary(Code.Internal, "Invalid grpc-timeout value");
  if (Number(match?.[1]) * unit > LONGEST_TIMER_MS)
    headers["grpc-timeout"] = `${Math.floor(LONGEST_TIMER_MS / 1_000)}S`;
  return undefined;
}
