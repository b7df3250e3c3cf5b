import type { OutgoingHttpHeaders } from "node:http";
import type { ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { Sending } from "@harborforge/connect-grpc-js";
import type { NodeResponse } from "./node-request.ts";
import {
  type ErrorForm,
  type Explained,
  errorForm,
  explainBody,
  explainEnvelope,
  explainTrailers,
} from "./protocol-error.ts";
import type { ResponseCompressor } from "./response-compressor.ts";

export interface SendOptions {
  /** How long a caller may read nothing while bytes wait to be sent, in milliseconds. Then its connection is closed. */
  readonly writeStallMs: number;
  /** Called for errors of the library that got details here. */
  readonly onExplained: (error: ConnectError) => void;
  /** Whether to ask for more messages only if the connection has room. A response of one message is complete already. */
  readonly streams: boolean;
  /** Compresses messages. Undefined: all are sent as they are. */
  readonly compression: ResponseCompressor | undefined;
  /** Counts what the response has written and not sent. */
  readonly sending: Sending;
}

/**
 * Sends a response of Connect's handlers. Errors without details get them here: those of calls that the library rejected
 * before a handler. This costs a look at the first byte of each message. It waits for the caller to read, within
 * `writeStallMs`. Never rejects. The handler's iterator is closed if the caller is gone.
 */
export async function sendResponse(response: UniversalServerResponse, res: NodeResponse, options: SendOptions) {
  const { sending } = options;
  res.once("close", () => sending.close());
  const body = response.body?.[Symbol.asyncIterator]();
  const form = errorForm(response.header?.get("content-type") ?? null);
  let status = response.status;
  try {
    if (body !== undefined) {
      for (;;) {
        if (!sending.hasCapacity && options.streams) await room(res, sending, options.writeStallMs);
        const next = await body.next();
        if (next.done === true) break;
        if (isGone(res)) return;
        const explained = explain(form, status, next.value);
        if (explained.error !== undefined) options.onExplained(explained.error);
        const compressing = options.compression?.chunk(explained.chunk) ?? explained.chunk;
        const chunk = compressing instanceof Promise ? await compressing : compressing;
        if (isGone(res)) return;
        if (!res.headersSent) {
          status = explained.httpStatus ?? status;
          if (explained.httpStatus !== undefined)
            response.header?.set("content-length", String(explained.chunk.length));
          res.writeHead(status, responseHeaders(res, response.header));
        }
        const { length } = chunk;
        sending.add(length);
        if (!res.write(chunk, () => sending.sent(length))) await drained(res, options.writeStallMs);
        if (isGone(res)) return;
      }
    }
    if (!res.headersSent) res.writeHead(status, responseHeaders(res, response.header));
    if (response.trailer !== undefined) {
      const error = explainTrailers(response.trailer);
      if (error !== undefined) options.onExplained(error);
      res.addTrailers(nodeHeaders(response.trailer));
    }
    res.end();
  } catch {
    // The caller cancelled or disconnected. The handler knows it by its signal.
    destroy(res);
  } finally {
    body?.return?.().then(undefined, () => undefined);
  }
}

function explain(form: ErrorForm, status: number, chunk: Uint8Array): Explained {
  switch (form) {
    case "trailers":
      return { chunk };
    case "body":
      return status === 200 ? { chunk } : explainBody(chunk);
    default:
      return explainEnvelope(form, chunk);
  }
}

/** `writeHead` replaces what the listener has set before. `Vary` is a list, to which the listener adds `Origin`. */
function responseHeaders(res: NodeResponse, headers: Headers | undefined): OutgoingHttpHeaders {
  const given = res.getHeader("vary");
  const node = nodeHeaders(headers);
  if (typeof given === "string" && node.vary !== undefined) node.vary = `${given}, ${String(node.vary)}`;
  return node;
}

function nodeHeaders(headers: Headers | undefined): OutgoingHttpHeaders {
  const node: OutgoingHttpHeaders = {};
  for (const [key, value] of headers ?? []) node[key] = value;
  return node;
}

function isGone(res: NodeResponse): boolean {
  return res.stream === undefined ? res.destroyed : res.stream.destroyed || res.stream.closed;
}

function destroy(res: NodeResponse): void {
  if (!isGone(res)) res.destroy();
}

/** Resolves when the other streams of the connection have less unread data, or the caller is gone. */
function room(res: NodeResponse, sending: Sending, writeStallMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => destroy(res), writeStallMs);
    const onSettled = (): void => {
      clearTimeout(timer);
      res.off("close", onSettled);
      resolve();
    };
    sending.onCapacity(onSettled);
    res.once("close", onSettled);
  });
}

/** Resolves when the caller has read enough, or is gone. Closes the connection if it reads nothing. */
function drained(res: NodeResponse, writeStallMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => destroy(res), writeStallMs);
    const onSettled = (): void => {
      clearTimeout(timer);
      res.off("drain", onSettled);
      res.off("close", onSettled);
      resolve();
    };
    res.once("drain", onSettled);
    res.once("close", onSettled);
  });
}
