import { Code, ConnectError, type MethodImplSpec, type ServiceImplSpec } from "@connectrpc/connect";
import {
  createUniversalServiceHandlers,
  type ProtocolHandlerFactory,
  type UniversalHandler,
  type UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import { createHandlerFactory as connectProtocol } from "@connectrpc/connect/protocol-connect";
import { createHandlerFactory as grpcProtocol } from "@connectrpc/connect/protocol-grpc";
import { createHandlerFactory as grpcWebProtocol } from "@connectrpc/connect/protocol-grpc-web";
import { compressionGzip } from "@connectrpc/connect-node";
import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import type { Logger } from "../../../common/logging/logger.ts";
import { Refusal } from "../../domain/errors.ts";
import { peerKey } from "../callers/call-values.ts";
import type { Peers } from "../callers/peers.ts";
import { noSuchMethod } from "../errors/did-you-mean.ts";
import { CANCELLED, fromLibrary, fromRefusal, shorten, toConnectError } from "../errors/error-table.ts";
import { explain, INTERNAL_ERROR } from "../errors/library-errors.ts";
import { jsonRequestOptions } from "../json/requests.ts";
import type { ListenerLimits } from "../sockets/limits.ts";
import type { MessageInput, MessageQueue } from "../sockets/message-queue.ts";
import { TOO_MUCH } from "../sockets/receive-budget.ts";
import { mayCompress } from "../sockets/response-compression.ts";
import { type SendBudget, TOO_MUCH_UNREAD } from "../sockets/send-budget.ts";
import { PLAIN_JSON_REMEDY } from "../sockets/whole-messages.ts";
import { isBinary, mayBeCompressed, withReadMessages } from "./connect-input.ts";
import { withExplainedInput } from "./explained-input.ts";
import { withJsonErrors } from "./json-errors.ts";
import { withKeptEncodings } from "./kept-encodings.ts";
import { connectionOf, type NodeRequest, type NodeResponse, universalRequest } from "./node-request.ts";
import { sendResponse } from "./node-response.ts";
import { rejectCall } from "./protocol-error.ts";
import { requestFault } from "./request-fault.ts";
import { type ResponseCompressor, responseCompressor } from "./response-compressor.ts";

/** The calls of the Connect listener. */
export interface ConnectCalls {
  /** Serves a request if it is a call. Returns false for other requests, without a response. */
  serve(req: NodeRequest, res: NodeResponse): boolean;
  /** Rejects any request with an error. */
  reject(req: NodeRequest, res: NodeResponse, refusal: Refusal): void;
  /**
   * Rejects a request of HTTP/1.1 with ambiguous headers, with status 400 for all protocols, and closes the connection:
   * the end of this request may be ambiguous as well (RFC 9112, sections 3.2 and 11.2).
   */
  rejectAsMalformed(req: NodeRequest, res: NodeResponse, refusal: Refusal): void;
}

interface AnsweredCall {
  readonly connection: object | undefined;
  readonly streams: boolean;
  readonly compression: ResponseCompressor | undefined;
}

const RPC_CONTENT_TYPE = /^application\/(grpc|connect\+|proto|json)/i;

export function createConnectCalls(
  services: readonly ServiceImplSpec[],
  log: Logger,
  limits: ListenerLimits,
  peers: Peers,
  queue: MessageQueue,
  sendBudget: SendBudget,
  compression?: ResponseCompression,
): ConnectCalls {
  const protocolOptions = {
    readMaxBytes: MAX_MESSAGE_BYTES,
    // Only gzip. With Node's default quality, brotli takes a second of CPU for a response that gzip compresses in 20 ms.
    acceptCompression: [{ ...compressionGzip, decompress: decompressesElsewhere }],
    // The library negotiates. `sendResponse` compresses, so that responses share their compression.
    compressMinBytes: Number.POSITIVE_INFINITY,
  };
  const protocols = [grpcProtocol, grpcWebProtocol, connectProtocol].map((protocol): ProtocolHandlerFactory => {
    // One factory for each method, since the strict JSON decoder depends on the method's input.
    const forMethod: (spec: MethodImplSpec) => UniversalHandler = (spec) =>
      protocol({ ...protocolOptions, jsonOptions: jsonRequestOptions(spec.method.input) })(spec);
    return Object.assign(forMethod, { protocolName: protocol(protocolOptions).protocolName });
  });
  const handlers = new Map<string, UniversalHandler>();
  for (const service of services) {
    const served = withKeptEncodings(withJsonErrors(withExplainedInput(service)), isBinary);
    for (const handler of createUniversalServiceHandlers(served, protocols)) handlers.set(handler.requestPath, handler);
  }

  const sendOptions = {
    writeStallMs: limits.writeStallMs,
    onExplained: (error: ConnectError) => {
      const explained = explain(error.code, error.rawMessage);
      // The library's text quotes what the caller sent, which must not be logged.
      if (explained.message === INTERNAL_ERROR)
        log.warn({ event: "call.protocol_failed", err: error }, "the protocol library failed a call");
      else log.debug({ event: "call.rejected", code: Code[explained.code] }, "call rejected before its handler");
    },
  };

  function answer(res: NodeResponse, response: UniversalServerResponse, call: Partial<AnsweredCall> = {}): void {
    const { connection, streams = false, compression } = call;
    void sendResponse(response, res, { ...sendOptions, streams, compression, sending: sendBudget.sending(connection) });
  }

  async function call(handler: UniversalHandler, req: NodeRequest, res: NodeResponse): Promise<void> {
    const contentType = contentTypeOf(req);
    const kind = handler.method.methodKind;
    if (kind === "bidi_streaming" && req.httpVersionMajor < 2) {
      // Clients that expect a response while they still send would wait for ever on a connection that stays open.
      res.setHeader("connection", "close");
      return answer(res, rejectCall(contentType, fromRefusal(http2Required(handler))));
    }
    const streamsIn = kind === "client_streaming" || kind === "bidi_streaming";
    const connection = connectionOf(req);
    const peer = peers.valuesFor(connection);
    const request = universalRequest(req, res, streamsIn ? undefined : limits.requestMs, peer, queue.budget);
    const makeInput = (): MessageInput => {
      const input = queue.input(connection, peer.get(peerKey).address, streamsIn);
      const close = (): void => input.close(CANCELLED);
      if (request.signal.aborted) close();
      else request.signal.addEventListener("abort", close);
      // A client may keep its side open after the response.
      (res.stream ?? res).once("finish", close);
      return input;
    };
    const read = withReadMessages(request, handler.method.input, makeInput);
    const whole = read instanceof Promise ? await read : read;
    const response = await handler(whole);
    // For these two, the library responds only with a number.
    if (response.status === 405 && response.body === undefined) {
      res.setHeader("allow", handler.allowedMethods.join(", "));
      return answer(res, rejectCall(contentType, badMethod(handler), 405));
    }
    if (response.status === 415 && response.body === undefined) {
      return answer(res, rejectCall(contentType, badContentType(handler, contentType), 415));
    }
    nameEncodings(whole.header, response.header);
    const streams = kind === "server_streaming" || kind === "bidi_streaming";
    if (streams) passAtOnce(response.header);
    return answer(res, response, {
      connection,
      streams,
      compression: mayCompress(handler.method)
        ? responseCompressor(response, whole.header.get("accept-encoding"), compression)
        : undefined,
    });
  }

  return {
    reject: (req, res, refusal) => {
      req.resume();
      answer(res, rejectCall(contentTypeOf(req), fromRefusal(refusal)));
    },
    rejectAsMalformed: (req, res, refusal) => {
      // The rest of the request is read: closing the connection before could discard the response.
      req.resume();
      res.setHeader("connection", "close");
      answer(res, rejectCall(null, fromRefusal(refusal)));
    },
    serve: (req, res) => {
      const path = (req.url ?? "").split("?", 1)[0] ?? "";
      const handler = handlers.get(path);
      if (handler === undefined) {
        if (req.method !== "POST" || !RPC_CONTENT_TYPE.test(contentTypeOf(req) ?? "")) return false;
        req.resume();
        answer(
          res,
          rejectCall(contentTypeOf(req), fromLibrary(Code.Unimplemented, noSuchMethod(path, handlers.keys())), 404),
        );
        return true;
      }
      const fault = requestFault(req, handler);
      if (fault !== undefined) {
        answer(res, rejectCall(contentTypeOf(req), fromLibrary(Code.InvalidArgument, fault)));
        return true;
      }
      const unread = handler.method.methodKind === "unary" && !sendBudget.hasCapacity(connectionOf(req));
      if (
        unread ||
        (isCompressed(req) && handler.method.methodKind === "unary" && !queue.budget.hasCapacity(connectionOf(req)))
      ) {
        // Its response has no room, or the request itself would be rejected when it has arrived. The rest of the request
        // is discarded.
        req.resume();
        answer(res, rejectCall(contentTypeOf(req), unread ? TOO_MUCH_UNREAD : TOO_MUCH));
        return true;
      }
      call(handler, req, res).catch((thrown: unknown) => {
        if (thrown instanceof ConnectError) return answer(res, rejectCall(contentTypeOf(req), thrown));
        log.error({ event: "call.handler_bypassed", err: thrown, method: path }, "call failed outside its handler");
        answer(res, rejectCall(contentTypeOf(req), toConnectError(thrown)));
      });
      return true;
    },
  };
}

/** The message queue decompresses requests before Connect sees them. Connect would not count their bytes. */
function decompressesElsewhere(): Promise<never> {
  return Promise.reject(new Error("a compressed message came past the message queue"));
}

function isCompressed({ headers, method, url }: NodeRequest): boolean {
  if (method === "GET") return url !== undefined && mayBeCompressed(url);
  const encoding = headers["content-encoding"] ?? headers["grpc-encoding"];
  return encoding !== undefined && encoding !== "identity";
}

/** Asks proxies to pass each message of a stream at once: nginx would collect them, and others may compress them. */
function passAtOnce(header: Headers | undefined): void {
  header?.set("x-accel-buffering", "no");
  header?.set("cache-control", "no-transform");
}

/** The headers in which requests name their compression, with those in which responses name the supported ones. */
const ENCODINGS: readonly (readonly [string, string])[] = [
  ["grpc-encoding", "grpc-accept-encoding"],
  ["connect-content-encoding", "connect-accept-encoding"],
  ["content-encoding", "accept-encoding"],
];

/** Names the supported compressions in the response to a request with another one, as the protocols prescribe. */
function nameEncodings(request: Headers, response: Headers | undefined): void {
  for (const [given, accepted] of ENCODINGS) {
    const encoding = request.get(given);
    if (encoding !== null && encoding !== "identity" && encoding !== "gzip") response?.set(accepted, "gzip");
  }
}

function contentTypeOf(req: NodeRequest): string | null {
  return req.headers["content-type"] ?? null;
}

function http2Required(handler: UniversalHandler): Refusal {
  return new Refusal(
    "HTTP2_REQUIRED",
    `${handler.method.name} streams in both directions, which HTTP/1.1 cannot carry: use HTTP/2 on the same address`,
  );
}

function badMethod(handler: UniversalHandler): ConnectError {
  return fromLibrary(Code.Unimplemented, `${handler.method.name} takes ${handler.allowedMethods.join(" or ")}`);
}

function badContentType(handler: UniversalHandler, contentType: string | null): ConnectError {
  const { name, methodKind } = handler.method;
  if (methodKind !== "unary" && UNARY_CONTENT_TYPE.test(contentType ?? "")) {
    return fromLibrary(Code.InvalidArgument, `${name} streams, so ${PLAIN_JSON_REMEDY}`);
  }
  const own = methodKind === "unary" ? "" : "connect+";
  const got =
    contentType === null ? "no content type" : `the content type ${JSON.stringify(shorten(contentType, 100))}`;
  return fromLibrary(
    Code.InvalidArgument,
    `the request has ${got}: use one of application/${own}json, application/${own}proto, application/grpc, application/grpc-web`,
  );
}

/** Content types of Connect for calls with one message. */
const UNARY_CONTENT_TYPE = /^application\/(json|proto)\s*(;|$)/i;
