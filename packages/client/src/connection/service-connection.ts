import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect,
  constants,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";

/** What `node:tls` is told for `https` addresses. */
export type TlsOptions = Pick<SecureClientSessionOptions, "ca" | "cert" | "key" | "servername" | "rejectUnauthorized">;

/** A connection on which nothing arrived for this long is asked by a ping whether it is alive. */
const PING_AFTER_MS = 10_000;
/** A ping that is not answered for this long ends the connection. */
const PING_TIMEOUT_MS = 5_000;
/**
 * A timer that fires later than this was held up by a blocked event loop. The answer to the ping may have arrived
 * meanwhile without having been read, so the ping gets this time in addition, once.
 */
const LATE_TIMER_MS = 500;
/** A connection without calls is closed after this. */
const IDLE_MS = 15 * 60_000;
/** A connection can close between being chosen and being used; more than this many times in a row is no coincidence. */
const MOST_ATTEMPTS = 3;
/** What a server sends in GOAWAY to a client that pings too often, by gRPC's proposal A8. */
const TOO_MANY_PINGS = Buffer.from("too_many_pings", "ascii");

/**
 * The HTTP/2 connection to one address, as connect-node's transports use it (`sessionManager`). It opens with the first
 * request, is kept alive by pings, and is replaced when it ends.
 *
 * It replaces connect-node's `Http2SessionManager`, which removes its `error` listeners when it leaves a session: an
 * error that is emitted after that ends the process (connectrpc/connect-es#1768 and #1795). Here every session, socket
 * and stream has an `error` listener from its creation to its end, and no loop waits for a state to change.
 */
export class ServiceConnection {
  /** The origin that requests go to. */
  readonly authority: string;
  readonly #tls: TlsOptions | undefined;
  readonly #sessions = new Set<Session>();
  /** The one that takes requests. Others only finish those that they have. */
  #session: Session | undefined;
  #pingAfterMs = PING_AFTER_MS;

  constructor(baseUrl: string, tls?: TlsOptions) {
    this.authority = new URL(baseUrl).origin;
    this.#tls = tls;
  }

  /**
   * Sends the headers of a request.
   *
   * @throws ConnectError `UNAVAILABLE` when no connection can be opened, or when `abort` was called meanwhile
   */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    for (let attempt = 1; ; attempt += 1) {
      const session = await this.#ready();
      try {
        return session.request({ ...headers, ":method": method, ":path": path }, options);
      } catch (error) {
        if (session.isUsable) throw error;
        if (attempt === MOST_ATTEMPTS) throw unavailable("the connection closed before the request was sent", error);
      }
    }
  }

  /** Something of a response was read: the connection is alive. */
  notifyResponseByteRead(stream: ClientHttp2Stream): void {
    for (const session of this.#sessions) session.noteRead(stream);
  }

  /** Ends the connection and all requests on it with this error. The next request opens another connection. */
  abort(error: ConnectError): void {
    this.#session = undefined;
    for (const session of [...this.#sessions]) session.end(error);
  }

  async #ready(): Promise<Session> {
    const session = this.#current();
    await session.connected;
    if (await session.isAlive()) return session;
    const next = this.#current();
    await next.connected;
    return next;
  }

  #current(): Session {
    if (this.#session?.isUsable === true) return this.#session;
    const session: Session = new Session(connect(this.authority, { ...this.#tls, settings: { enablePush: false } }), {
      pingAfterMs: () => this.#pingAfterMs,
      onTooManyPings: () => {
        this.#pingAfterMs *= 2;
      },
      onClose: () => {
        this.#sessions.delete(session);
      },
    });
    this.#sessions.add(session);
    this.#session = session;
    return session;
  }
}

interface SessionOptions {
  readonly pingAfterMs: () => number;
  readonly onTooManyPings: () => void;
  readonly onClose: () => void;
}

/** One HTTP/2 session, from its connecting to its `close` event. */
class Session {
  /** Rejects with a ConnectError when the connection cannot be opened. */
  readonly connected: Promise<void>;
  readonly #session: ClientHttp2Session;
  readonly #options: SessionOptions;
  #streams = 0;
  #lastAlive: Moment = currentMoment();
  /** Whether the server told it to take no more requests. */
  #goesAway = false;
  #pinging: Promise<boolean> | undefined;
  #keepAlive: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(session: ClientHttp2Session, options: SessionOptions) {
    this.#session = session;
    this.#options = options;
    const opening = Promise.withResolvers<void>();
    this.connected = opening.promise;
    ignoreRejection(opening.promise);
    // Never removed: an error that is emitted without a listener ends the process.
    session.on("error", (error) => opening.reject(unavailable(error.message || codeOf(error), error)));
    session.socket.on("error", ignore);
    session.on("connect", () => {
      // Node emits it also for a session that was destroyed meanwhile.
      if (!this.isUsable) return;
      this.#lastAlive = currentMoment();
      // An idle connection does not keep the process running.
      session.unref();
      this.#watchIdle();
      opening.resolve();
    });
    session.on("goaway", (_code, _lastStream, data?: Buffer) => this.#goAway(data));
    // Push is switched off. A server that pushes all the same must not be able to do harm.
    session.on("stream", (stream: ClientHttp2Stream) => stream.on("error", ignore).close());
    session.on("close", () => {
      clearTimeout(this.#keepAlive);
      clearTimeout(this.#idle);
      opening.reject(unavailable("the connection closed before it was open"));
      options.onClose();
    });
  }

  get isUsable(): boolean {
    return !this.#goesAway && !this.#session.closed && !this.#session.destroyed;
  }

  /** @throws Error of Node's when the session has ended or the headers are not valid */
  request(headers: OutgoingHttpHeaders, options: Omit<ClientSessionRequestOptions, "signal">): ClientHttp2Stream {
    const stream = this.#session.request(headers, options);
    // The caller gets the stream a few microtasks later, and an error may come before that.
    stream.on("error", ignore);
    this.#streams += 1;
    if (this.#streams === 1) {
      this.#session.ref();
      clearTimeout(this.#idle);
      this.#watchSilence(this.#options.pingAfterMs());
    }
    stream.once("response", () => {
      this.#lastAlive = currentMoment();
    });
    stream.once("close", () => {
      this.#streams -= 1;
      if (this.#streams > 0 || this.#session.destroyed) return;
      if (this.#pinging === undefined) this.#session.unref();
      clearTimeout(this.#keepAlive);
      if (this.#goesAway) this.#session.destroy();
      else this.#watchIdle();
    });
    return stream;
  }

  noteRead(stream: ClientHttp2Stream): void {
    if (stream.session === this.#session) this.#lastAlive = currentMoment();
  }

  /** Whether the other end answers. It is asked only when nothing arrived for long; a session that is dead ends. */
  async isAlive(): Promise<boolean> {
    if (!this.isUsable) return false;
    return msSince(this.#lastAlive) <= this.#options.pingAfterMs() || (await this.#ping());
  }

  end(error: ConnectError): void {
    if (!this.#session.destroyed) this.#session.destroy(error, constants.NGHTTP2_CANCEL);
  }

  #goAway(data: Buffer | undefined): void {
    this.#goesAway = true;
    if (data !== undefined && TOO_MANY_PINGS.equals(data)) this.#options.onTooManyPings();
    // Node waits for open streams, and where there are none for nothing at all.
    if (this.#streams === 0 && !this.#session.destroyed) this.#session.destroy();
  }

  #watchIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#session.close(), IDLE_MS).unref();
  }

  /** While there are requests: asks when nothing arrived for long. */
  #watchSilence(withinMs: number): void {
    clearTimeout(this.#keepAlive);
    this.#keepAlive = setTimeout(() => {
      const pingAfterMs = this.#options.pingAfterMs();
      const leftMs = pingAfterMs - msSince(this.#lastAlive);
      if (leftMs > 0) this.#watchSilence(leftMs);
      else void this.#ping().then((alive) => alive && this.#streams > 0 && this.#watchSilence(pingAfterMs));
    }, withinMs).unref();
  }

  /** Never rejects. */
  #ping(): Promise<boolean> {
    this.#pinging ??= this.#pingOnce().finally(() => {
      this.#pinging = undefined;
      if (this.#streams === 0) this.#session.unref();
    });
    return this.#pinging;
  }

  #pingOnce(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    // A request waits for the answer.
    this.#session.ref();
    let isLate = false;
    let timer: NodeJS.Timeout | undefined;
    const wait = (ms: number): void => {
      const due = performance.now() + ms;
      timer = setTimeout(() => {
        if (!isLate && performance.now() - due > LATE_TIMER_MS) {
          isLate = true;
          wait(LATE_TIMER_MS);
          return;
        }
        this.end(unavailable("the connection did not answer a ping"));
        resolve(false);
      }, ms);
      timer.unref();
    };
    wait(PING_TIMEOUT_MS);
    try {
      this.#session.ping((error: Error | null) => {
        clearTimeout(timer);
        if (error === null) this.#lastAlive = currentMoment();
        resolve(error === null);
      });
    } catch {
      // It ended meanwhile.
      clearTimeout(timer);
      resolve(false);
    }
    return promise;
  }
}

function unavailable(message: string, cause?: unknown): ConnectError {
  return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
}

/** Node leaves the message empty where it tried several addresses of a name. */
function codeOf(error: Error): string {
  return "code" in error ? String(error.code) : error.name;
}

function ignore(): void {
  // The streams' own errors reach those who wait for the call.
}

function ignoreRejection(promise: Promise<unknown>): void {
  promise.catch(ignore);
}
