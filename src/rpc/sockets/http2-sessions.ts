import { constants, type Http2Session, type ServerHttp2Session } from "node:http2";
import { setTimeout as delay } from "node:timers/promises";
import { TokenBucket } from "../callers/token-buckets.ts";

/** The HTTP/2 connections of a listener. It closes dead ones, and asks clients to leave when it drains. */
export interface Http2Sessions {
  add(session: ServerHttp2Session): void;
  readonly size: number;
  /** Asks one client to open new streams on another connection. Open streams go on. May be repeated. */
  retire(session: Http2Session): void;
  /** Asks all clients to open no more streams. Resolves when all connections are closed. */
  drain(): Promise<void>;
  /** Destroys all connections with their streams, and stops pinging. */
  close(): void;
}

/** The greatest stream id. A GOAWAY with it promises that streams in flight are still served. */
const LAST_STREAM_ID = 2 ** 31 - 1;

/** Longer than a round trip: the client has the GOAWAY before the connection rejects new streams. */
const GOAWAY_NOTICE_MS = 100;

/**
 * The limit of PING and SETTINGS frames, which the server has to answer and no call needs. Clients send a keep-alive every ten
 * seconds, gRPC libraries measure bandwidth with at most one ping a round trip, and settings rarely change. nghttp2 closes a
 * connection whose client does not read the answers; this limit also closes one whose client does.
 */
const CONTROL_FRAMES = { perSecond: 100, burst: 1_000 };

export function createHttp2Sessions(pingIntervalMs: number): Http2Sessions {
  const sessions = new Set<ServerHttp2Session>();
  const unanswered = new WeakSet<ServerHttp2Session>();
  const retired = new WeakSet<Http2Session>();
  let emptied: (() => void) | undefined;

  const sweep = setInterval(() => {
    for (const session of sessions) {
      if (unanswered.has(session)) session.destroy();
      else ping(session);
    }
  }, pingIntervalMs);
  sweep.unref();

  function ping(session: ServerHttp2Session): void {
    if (session.destroyed) return;
    unanswered.add(session);
    const sent = session.ping((error) => {
      if (error === null) unanswered.delete(session);
    });
    if (!sent) session.destroy();
  }

  return {
    add: (session) => {
      sessions.add(session);
      session.once("close", () => {
        sessions.delete(session);
        if (sessions.size === 0) emptied?.();
      });
      const budget = new TokenBucket(CONTROL_FRAMES);
      const onControlFrame = (): void => {
        if (budget.take() > 0) session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      };
      session.on("ping", onControlFrame);
      session.on("remoteSettings", onControlFrame);
      // Without a listener, an error of one connection would end the process. `close` follows by itself.
      session.on("error", () => undefined);
    },
    get size() {
      return sessions.size;
    },
    retire: (session) => {
      if (retired.has(session) || session.destroyed) return;
      retired.add(session);
      session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_ID);
      setTimeout(() => session.close(), GOAWAY_NOTICE_MS).unref();
    },
    drain: async () => {
      for (const session of sessions) {
        if (!session.destroyed) session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_ID);
      }
      await delay(GOAWAY_NOTICE_MS);
      const gone = new Promise<void>((resolve) => {
        emptied = resolve;
        if (sessions.size === 0) resolve();
      });
      for (const session of sessions) session.close();
      await gone;
    },
    close: () => {
      clearInterval(sweep);
      for (const session of sessions) session.destroy();
    },
  };
}
