import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";

/** The options of `node:tls` for `https` addresses. */
export type TlsOptions = Pick<SecureClientSessionOptions, "ca" | "cert" | "key" | "servername" | "rejectUnauthorized">;

/** The client pings a connection on which nothing arrived for this long. */
const PING_AFTER_MS = 10_000;
/** The client closes a connection that does not answer a ping within this time. */
const PING_TIMEOUT_MS = 5_000;
/**
 * A timer that fires later than this shows that the event loop was blocked. The answer to the ping may be there and not read yet,
 * so the ping gets this much more time, once.
 */
const LATE_TIMER_MS = 500;
/** The client closes a connection without calls after this time. */
const IDLE_MS = 15 * 60_000;
/** A connection can close between its choice and its use. After this many times in a row the call fails. */
const MOST_ATTEMPTS = 3;
/** The data of GOAWAY to a client that pings too often (gRPC proposal A8). */
const TOO_MANY_PINGS = Buffer.from("too_many_pings", "ascii");

/**
 * The HTTP/2 connection to one address. It opens with the first request, sends pings, and is replaced when it ends.
 *
 * Every session, socket and stream has an `error` listener from its creation to its end, since an error event without a listener
 * ends the process. No loop waits for a state to change.
 */
export class ServiceConnection {
  /** The origin that requests go to. */
  readonly authority: string;
  readonly #tls: TlsOptions | undefined;
  readonly #sessions = new Set<Session>();
  /** The session for new requests. Older ones only finish their requests. */
  #session: Session | undefined;
  #pingAfterMs = PING_AFTER_MS;

  constructor(baseUrl: string, tls?: TlsOptions) {
    this.authority = new URL(baseUrl).origin;
    this.#tls = tls;
  }

  /**
   * Sends the headers of a request.
   *
   * @param headers with `:method` and `:path`
   * @param signal when it has aborted, nothing is sent
   * @throws ConnectError `UNAVAILABLE` if no connection can be opened, or if `abort` is called in the meantime; the reason of the
   * signal
   */
  async request(headers: OutgoingHttpHeaders, signal?: AbortSignal): Promise<ClientHttp2Stream> {
    for (let attempt = 1; ; attempt += 1) {
      const session = await this.#ready();
      signal?.throwIfAborted();
      try {
        return session.request(headers);
      } catch (error) {
        if (session.isUsable) throw error;
        if (attempt === MOST_ATTEMPTS) throw unavailable("the connection closed before the request was sent", error);
      }
    }
  }

  /** Called when a part of a response was read: the connection works. */
  noteRead(stream: ClientHttp2Stream): void {
    for (const session of this.#sessions) session.noteRead(stream);
  }

  /** Closes the connection and ends its requests with this error. The next request opens another one. */
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
  /** Rejects with a ConnectError if the connection cannot be opened. */
  readonly connected: Promise<void>;
  readonly #session: ClientHttp2Session;
  readonly #options: SessionOptions;
  #streams = 0;
  #lastAlive: Moment = currentMoment();
  /** Whether the server sent GOAWAY. */
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
    // Never removed: an error event without a listener ends the process.
    session.on("error", (error) => opening.reject(unavailable(error.message || codeOf(error), error)));
    session.socket.on("error", ignore);
    session.on("connect", () => {
      // Node also emits this event for a session that was destroyed in the meantime.
      if (!this.isUsable) return;
      this.#lastAlive = currentMoment();
      // An idle connection does not keep the process running.
      session.unref();
      this.#watchIdle();
      opening.resolve();
    });
    session.on("goaway", (_code, _lastStream, data?: Buffer) => this.#goAway(data));
    // Push is off. A server that pushes all the same must not do harm.
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

  /** @throws Error of Node if the session has ended or the headers are not valid */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    const stream = this.#session.request(headers);
    // An error can come before the caller gets the stream, a few microtasks later.
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

  /** Whether the server answers. Pings only if nothing arrived for long, and closes a dead session. */
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
    // Node ends the session after its last stream, but does nothing if there is none.
    if (this.#streams === 0 && !this.#session.destroyed) this.#session.destroy();
  }

  #watchIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#session.close(), IDLE_MS).unref();
  }

  /** Pings while there are requests and nothing arrived for long. */
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
      // The session ended in the meantime.
      clearTimeout(timer);
      resolve(false);
    }
    return promise;
  }
}

function unavailable(message: string, cause?: unknown): ConnectError {
  return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
}

/** The message of Node is empty if it tried several addresses of a name. */
function codeOf(error: Error): string {
  return "code" in error ? String(error.code) : error.name;
}

function ignore(): void {
  // The caller gets the error from the stream.
}

function ignoreRejection(promise: Promise<unknown>): void {
  promise.catch(ignore);
}
