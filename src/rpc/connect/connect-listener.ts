import { createServer as createHttp1Server, type IncomingMessage, type ServerResponse } from "node:http";
import {
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { createServer, type Socket } from "node:net";
import type { ServiceImplSpec } from "@connectrpc/connect";
import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import type { Logger } from "../../../common/logging/logger.ts";
import type { Credentials } from "../../domain/principal.ts";
import { peerKey } from "../callers/call-values.ts";
import { Peers } from "../callers/peers.ts";
import { refuseAmbiguous } from "../sockets/ambiguous-authorization.ts";
import type { ConnectionGate } from "../sockets/connection-gate.ts";
import type { HostCheck } from "../sockets/host-check.ts";
import { createHttp2Sessions } from "../sockets/http2-sessions.ts";
import { DEFAULT_LISTENER_LIMITS, http2Options, type ListenerLimits } from "../sockets/limits.ts";
import { lingerThenReset } from "../sockets/linger.ts";
import { listen, SOCKET_OPTIONS } from "../sockets/listen.ts";
import type { Listener } from "../sockets/listener.ts";
import { MessageQueue } from "../sockets/message-queue.ts";
import { NewStreams } from "../sockets/new-streams.ts";
import { sniffProtocol } from "../sockets/preface.ts";
import { DEFAULT_RECEIVE_LIMITS, ReceiveBudget } from "../sockets/receive-budget.ts";
import { SendBudget } from "../sockets/send-budget.ts";
import { ambiguousHeaders } from "../sockets/single-headers.ts";
import { StreamScheduler } from "../sockets/stream-scheduler.ts";
import type { Tls } from "../tls/tls-acceptor.ts";
import { createConnectCalls } from "./connect-calls.ts";
import { answerPreflight, createCrossOrigin } from "./cross-origin.ts";
import { createHttp1Errors } from "./http1-errors.ts";
import { connectionOf, type NodeRequest, type NodeResponse } from "./node-request.ts";
import { createPlainPages, type MetricsPage } from "./plain-pages.ts";

export interface ConnectListenerLimits extends ListenerLimits {
  /** How long a new connection may wait before it shows its protocol, in milliseconds. Default 5 s. */
  readonly sniffMs: number;
  /** HTTP/1.1: how long the headers of a request may take, in milliseconds. Default 10 s. */
  readonly headersMs: number;
  /** HTTP/1.1: how long a whole request may take to arrive, in milliseconds. Default 30 s. */
  readonly wholeRequestMs: number;
  /**
   * HTTP/1.1: how long a connection may idle between requests, in milliseconds. Longer than the 60 s of usual load
   * balancers, so that they close first and no request arrives at a closing connection. Default 65 s.
   */
  readonly keepAliveMs: number;
}

export interface ConnectListenerOptions {
  /** As the pipeline wrapped them. */
  readonly services: readonly ServiceImplSpec[];
  readonly log: Logger;
  /** The metrics of `GET /metrics`. */
  readonly metrics: MetricsPage;
  /** Why the replica is not ready, as text for `GET /readyz`. Undefined: it is ready. */
  readonly ready: () => string | undefined;
  /** Limits connections. */
  readonly gate: ConnectionGate;
  /** Undefined: the listener serves cleartext. */
  readonly tls?: Tls | undefined;
  /** Further lines of `GET /readyz`. Default: none. */
  readonly notes?: () => readonly string[];
  /**
   * Authorizes a request for `GET /metrics`. It throws, or rejects with, a refusal. Default: every caller is authorized.
   */
  readonly mayReadMetrics?: (credentials: Credentials) => void | Promise<void>;
  readonly limits?: Partial<ConnectListenerLimits>;
  /** Limits the memory of messages that are being received. Default: a budget of this listener alone. */
  readonly budget?: ReceiveBudget;
  /** Limits the memory of responses that callers do not read. Default: a budget of this listener alone. */
  readonly sendBudget?: SendBudget;
  /** The queue of compressed and large messages. Default: a queue of this listener alone, on `budget`. */
  readonly queue?: MessageQueue;
  /** Compresses responses. Default: none are compressed. */
  readonly compression?: ResponseCompression | undefined;
  /** Schedules the start of calls. Default: a scheduler of this listener alone. */
  readonly scheduler?: StreamScheduler;
  /** Rejects requests whose Host or Origin is not this machine. Default: all are accepted. */
  readonly hostCheck?: HostCheck | undefined;
  /** The origins whose pages may read responses, as browsers send them. Default: none. */
  readonly allowedOrigins?: readonly string[];
}

const DEFAULT_LIMITS: ConnectListenerLimits = {
  ...DEFAULT_LISTENER_LIMITS,
  sniffMs: 5_000,
  headersMs: 10_000,
  wholeRequestMs: 30_000,
  keepAliveMs: 65_000,
};

/**
 * The most unanswered requests of one HTTP/1.1 connection. Clients that send the next request before the response are
 * rare, and send a few; Node reads on without a limit.
 */
const MOST_PIPELINED = 100;

/**
 * What usually arrives with the preface of HTTP/2 at most: settings, and a call. Larger input is read from one connection
 * at a time.
 */
const USUAL_GREETING_BYTES = 4_096;

/**
 * The Connect listener: Connect, gRPC-Web and gRPC, binary and JSON, over HTTP/1.1 and HTTP/2 on one port; and
 * `/healthz`, `/readyz`, `/metrics`. There are two Node servers, neither of which listens by itself. TLS chooses one by
 * ALPN. In cleartext, the first bytes of the connection decide, since Node serves both protocols on one port only with
 * TLS.
 */
export function createConnectListener(options: ConnectListenerOptions): Listener {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const { log } = options;
  const peers = new Peers("connect");
  const budget = options.budget ?? new ReceiveBudget({ ...DEFAULT_RECEIVE_LIMITS, messageMs: limits.requestMs });
  const mayReadMetrics = (req: NodeRequest): void | Promise<void> => {
    const peer = peers.valuesFor(connectionOf(req)).get(peerKey).identity;
    return options.mayReadMetrics?.({ authorization: req.headers.authorization ?? null, peer });
  };
  const methods = options.services.flatMap(({ service }) =>
    service.methods.map(({ name }) => `/${service.typeName}/${name}`),
  );
  const pages = createPlainPages(
    methods,
    options.metrics,
    options.ready,
    options.notes ?? (() => []),
    mayReadMetrics,
    options.compression,
  );
  const queue = options.queue ?? new MessageQueue(budget);
  const calls = createConnectCalls(
    options.services,
    log,
    limits,
    peers,
    queue,
    options.sendBudget ?? new SendBudget(),
    options.compression,
  );
  const crossOrigin = createCrossOrigin(options.allowedOrigins ?? []);
  const sessions = createHttp2Sessions(limits.pingIntervalMs);
  const scheduler = options.scheduler ?? new StreamScheduler();
  const newStreams = new NewStreams(scheduler, sessions, options.gate);
  const http1Errors = createHttp1Errors(limits);
  const sockets = new Set<Socket>();
  /** HTTP/1.1 connections that are closed after a malformed request. */
  const malformed = new WeakSet<object>();
  let draining = false;

  const serve = (req: NodeRequest, res: NodeResponse): void => {
    req.on("error", () => undefined);
    res.on("error", () => undefined);
    const stream = res.stream;
    if (stream !== undefined) stream.once("finish", () => lingerThenReset(stream, limits.lingerMs));
    // HTTP/2 connections get a GOAWAY. HTTP/1.1 has only this header.
    if (draining && stream === undefined) res.setHeader("connection", "close");
    if (stream === undefined && malformed.has(req.socket)) {
      // Node reads on until the response is sent. More input may be a part of the malformed request.
      req.resume();
      return;
    }
    // Before all refusals, since the page has to read those, too.
    const isPreflight = crossOrigin(req, res);
    refuseAmbiguous(req.headers, req.rawHeaders);
    const ambiguous = ambiguousHeaders(req.rawHeaders, stream === undefined ? 1 : 2);
    const stranger = ambiguous ?? options.hostCheck?.(req.headers);
    if (ambiguous !== undefined && stream === undefined) {
      malformed.add(req.socket);
      calls.rejectAsMalformed(req, res, ambiguous);
    } else if (stranger !== undefined) calls.reject(req, res, stranger);
    else if (isPreflight) answerPreflight(req, res);
    else if (!calls.serve(req, res)) pages.serve(req, res);
  };

  const http1 = createHttp1Server(
    {
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.wholeRequestMs,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: Math.max(100, Math.min(limits.headersMs, limits.wholeRequestMs, 2_000) / 2),
      noDelay: true,
    },
    (req: IncomingMessage, res: ServerResponse) => {
      req.on("error", () => undefined);
      if (http1Errors.answering(res) > MOST_PIPELINED) {
        req.socket.destroy();
        return;
      }
      scheduler.add(req.socket, () => {
        if (req.destroyed || res.destroyed) return false;
        serve(req, res);
        return true;
      });
    },
  );
  http1.on("clientError", http1Errors.onClientError);
  // Node starts the clock of these timeouts when the server begins to listen. This server gets its sockets from the
  // listener.
  http1.emit("listening");

  const http2 = createHttp2Server(http2Options(limits), (req: Http2ServerRequest, res: Http2ServerResponse) =>
    serve(req, res),
  );
  // Node creates a request for each stream in its own event handler, which costs time. So it has to wait for the stream's
  // turn.
  const serveStream = http2.listeners("stream");
  http2.removeAllListeners("stream");
  http2.on("stream", (stream: ServerHttp2Stream, ...rest: unknown[]) =>
    newStreams.take(stream, () => {
      for (const listener of serveStream) Reflect.apply(listener, http2, [stream, ...rest]);
    }),
  );
  http2.on("session", (session: ServerHttp2Session) => {
    peers.add(session, session.socket);
    sessions.add(session);
  });
  http2.on("sessionError", (error: Error) =>
    log.debug({ event: "connection.failed", listener: "connect", err: error }, "HTTP/2 connection failed"),
  );

  const serveHttp1 = (socket: Socket): void => {
    peers.add(socket, socket);
    http1.emit("connection", socket);
  };
  // Node reads all input that came with the preface at once. It can be paused only after that.
  const newConnections = new StreamScheduler(1);
  const serveHttp2 = (socket: Socket): void => {
    // In HTTP/1.1, clients that have closed their side still get responses. In HTTP/2, such a client is gone.
    socket.allowHalfOpen = false;
    if (socket.readableLength <= USUAL_GREETING_BYTES) http2.emit("connection", socket);
    else newConnections.add(socket, () => !socket.destroyed && http2.emit("connection", socket));
  };
  const secure = options.tls?.acceptor({
    alpn: ["h2", "http/1.1"],
    handshakeMs: limits.handshakeMs,
    onSecure: (socket) => (socket.alpnProtocol === "h2" ? serveHttp2(socket) : serveHttp1(socket)),
  });

  const listener = createServer({ allowHalfOpen: true, ...SOCKET_OPTIONS }, (socket) => {
    if (!options.gate.admit(socket)) return;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    if (secure !== undefined) secure.accept(socket);
    else sniffProtocol(socket, limits.sniffMs, (is) => (is === "http1" ? serveHttp1(socket) : serveHttp2(socket)));
  });

  return {
    start: (address) => listen(listener, address, log),
    drain: async () => {
      draining = true;
      listener.close();
      http1.closeIdleConnections();
      await sessions.drain();
    },
    close: async () => {
      const closed = new Promise<void>((resolve) => {
        if (listener.listening) listener.close(() => resolve());
        else resolve();
      });
      sessions.close();
      http1.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
