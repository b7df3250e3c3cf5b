import { constants, type Http2Session, type ServerHttp2Session } from "node:http2";
import { setTimeout as delay } from "node:timers/promises";
import { TokenBuckets } from "../callers/token-buckets.ts";

/** The HTTP/2 connections of a listener: dropped when they are dead, asked to go when it drains. */
export interface Http2Sessions {
  add(session: ServerHttp2Session): void;
  readonly size: number;
  /** Asks one client to open its further streams on another connection; those that are open go on. May be repeated. */
  retire(session: Http2Session): void;
  /** Asks every client to open no more streams here. Resolves when all connections are closed. */
  drain(): Promise<void>;
  /** Ends every connection with all its streams, at once, and stops pinging. */
  close(): void;
}

/** The greatest stream id: a GOAWAY with it promises that streams which are on their way are still served. */
const LAST_STREAM_ID = 2 ** 31 - 1;

/** Longer than a round trip, so that a client has heard the GOAWAY before the connection takes no new stream. */
const GOAWAY_NOTICE_MS = 100;

/**
 * What a client may send of frames that make us answer and that no call needs. Keep-alives come once in ten seconds, and
 * measurements of bandwidth, which gRPC libraries make by pings, at most once a round trip; settings change hardly ever.
 * nghttp2 ends a connection whose answers pile up; this ends one that reads them, too.
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
      const budget = new TokenBuckets({ ...CONTROL_FRAMES, maxKeys: 1 });
      const onControlFrame = (): void => {
        if (budget.take("") > 0) session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      };
      session.on("ping", onControlFrame);
      session.on("remoteSettings", onControlFrame);
      // Without a listener an error of one connection would end the process. Closing follows by itself.
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
