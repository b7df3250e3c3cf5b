import type { IncomingMessage, OutgoingHttpHeaders } from "node:http";
import type { Http2ServerRequest, ServerHttp2Stream } from "node:http2";
import type { Writable } from "node:stream";
import type { ContextValues } from "@connectrpc/connect";
import type { UniversalServerRequest } from "@connectrpc/connect/protocol";
import { LONGEST_TIMER_MS } from "../../../common/scheduling/timers.ts";
import { CANCELLED, DEADLINE_EXCEEDED } from "../errors/error-table.ts";
import type { ReceiveBudget, Receiving } from "../sockets/receive-budget.ts";

export type NodeRequest = IncomingMessage | Http2ServerRequest;

/** The common part of HTTP/1.1 and HTTP/2 responses. Only the latter has a stream. */
export interface NodeResponse extends Writable {
  readonly headersSent: boolean;
  readonly stream?: ServerHttp2Stream;
  getHeader(name: string): unknown;
  setHeader(name: string, value: string): unknown;
  writeHead(status: number, headers: OutgoingHttpHeaders): unknown;
  addTrailers(headers: OutgoingHttpHeaders): void;
}

/**
 * Converts a Node request for Connect's handlers. Connect's own conversion waits for ever for the bytes of a slow caller,
 * and a broken request looks complete.
 *
 * With `requestMs`, the whole body has to arrive within that time, in milliseconds, or reading it fails with
 * DEADLINE_EXCEEDED: a call with a single request must not wait for its bytes for ever.
 */
export function universalRequest(
  req: NodeRequest,
  res: NodeResponse,
  requestMs: number | undefined,
  contextValues: ContextValues,
  budget: ReceiveBudget,
): UniversalServerRequest & { body: AsyncIterable<Uint8Array> } {
  const header = webHeaders(req);
  clampTimeout(header, "connect-timeout-ms", /^\d{1,10}$/, () => 1, String(LONGEST_TIMER_MS));
  clampTimeout(header, "grpc-timeout", /^\d{1,8}[HMS]$/, msPerUnit, `${Math.floor(LONGEST_TIMER_MS / 1_000)}S`);
  const controller = new AbortController();
  const body = new RequestBody(req, requestMs, budget);
  // A client may keep its side open after the response. Its bytes are not needed any more. HTTP/2 reports the end of the
  // response at its stream; its response object reports it only when both sides are closed.
  (res.stream ?? res).once("finish", () => body.close());
  res.once("close", () => {
    controller.abort(CANCELLED);
    body.close();
  });
  return {
    httpVersion: req.httpVersion,
    method: req.method ?? "",
    url: requestUrl(req).toString(),
    header,
    body,
    signal: controller.signal,
    contextValues,
  };
}

/** The URL of the request. @throws TypeError if path or host are malformed */
export function requestUrl(req: NodeRequest): URL {
  const authority = "authority" in req ? req.authority : req.headers.host;
  return new URL(req.url ?? "/", `http://${authority === undefined || authority === "" ? "localhost" : authority}`);
}

function webHeaders(req: NodeRequest): Headers {
  const headers = new Headers();
  for (const [key, value] of Object.entries(req.headers)) {
    if (value === undefined || key.startsWith(":")) continue;
    for (const item of Array.isArray(value) ? value : [value]) headers.append(key, item);
  }
  return headers;
}

function msPerUnit(timeout: string): number {
  return { H: 3_600_000, M: 60_000, S: 1_000 }[timeout.at(-1) ?? ""] ?? 1;
}

/** A Node timer with a longer timeout would fire at once. Malformed ones are left to the protocol, which rejects them. */
function clampTimeout(
  headers: Headers,
  name: string,
  form: RegExp,
  unitMs: (v: string) => number,
  longest: string,
): void {
  const value = headers.get(name);
  if (value === null || !form.test(value)) return;
  if (Number.parseInt(value, 10) * unitMs(value) > LONGEST_TIMER_MS) headers.set(name, longest);
}

/**
 * The bytes of a request. It throws if they end early, also if Node reports a regular end. One early end cannot be
 * detected: Node's HTTP/2 clients, including grpc-js, half-close a stream before they cancel it. So the end of a stream
 * must not mean anything else; the context's signal is aborted a moment later.
 */
class RequestBody implements AsyncIterableIterator<Uint8Array> {
  readonly #req: NodeRequest;
  readonly #receiving: Receiving;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  #closed = false;
  #failure: unknown;
  #wake: (() => void) | undefined;
  readonly #onReadable = (): void => this.#wake?.();

  constructor(req: NodeRequest, requestMs: number | undefined, budget: ReceiveBudget) {
    this.#req = req;
    const enveloped = /^application\/(grpc|connect\+)/i.test(req.headers["content-type"] ?? "");
    this.#receiving = budget.request(connectionOf(req), enveloped, (error) => this.#fail(error));
    req.on("readable", this.#onReadable);
    req.once("end", () => {
      this.#ended = true;
      clearTimeout(this.#timer);
      this.#wake?.();
    });
    req.on("error", (error) => this.#fail(error));
    req.once("aborted", () => this.#fail(CANCELLED));
    if (requestMs !== undefined) {
      this.#timer = setTimeout(() => this.#fail(DEADLINE_EXCEEDED), requestMs);
    }
  }

  /** The call has ended. A reader that waits for bytes gets an error. */
  close(): void {
    clearTimeout(this.#timer);
    this.#receiving.close();
    if (this.#ended || this.#closed) return;
    this.#closed = true;
    this.#fail(CANCELLED);
    // The rest of the request is discarded. Otherwise the next request on this connection would wait for ever.
    this.#req.off("readable", this.#onReadable);
    this.#req.resume();
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const chunk: unknown = this.#req.read();
      if (chunk instanceof Uint8Array) {
        this.#receiving.add(chunk);
        if (this.#failure !== undefined) throw this.#failure;
        return { done: false, value: chunk };
      }
      if (this.#ended) {
        if (brokenOff(this.#req)) throw CANCELLED;
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    clearTimeout(this.#timer);
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #fail(error: unknown): void {
    clearTimeout(this.#timer);
    this.#failure ??= error;
    this.#wake?.();
  }
}

/** A stream that the caller half-closed is not closed here, since it still needs the response. */
function brokenOff(req: NodeRequest): boolean {
  return "stream" in req ? req.stream.closed || req.stream.destroyed : req.destroyed && !req.complete;
}

/** The connection of a request: its session in HTTP/2, undefined if the session is gone, else its socket. */
export function connectionOf(req: NodeRequest): object | undefined {
  return "stream" in req ? req.stream.session : req.socket;
}
