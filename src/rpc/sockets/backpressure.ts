import type { Http2Session } from "node:http2";

/**
 * Calls of one connection that may wait for their turn before no more is read from it. As many as two turns begin. One read of
 * 64 KiB may bring thousands, if they are small, before it can be stopped; it does not bring the next thousands.
 */
const MOST_WAITING = 64;

/**
 * The longest time that nothing is read from a connection, in milliseconds; then 64 KiB or so are. What else the client sends on
 * it, as pings, and messages of streams that are open, waits no longer than that for each read that is ahead of it. Clients give
 * a ping seconds to be answered.
 */
const LONGEST_PAUSE_MS = 100;

interface State {
  waiting: number;
  /** Set while nothing is read. */
  timer: NodeJS.Timeout | undefined;
}

/** What Node has below a socket. HTTP/2 reads from there, and offers no other way to hold a client back. */
interface Handle {
  readStop(): void;
  readStart(): void;
}

/** Stops reading from HTTP/2 connections, for a while, that bring calls faster than these get their turns. */
export class Backpressure {
  readonly #states = new WeakMap<Http2Session, State>();

  /** A call of the connection begins to wait. */
  add(session: Http2Session): void {
    let state = this.#states.get(session);
    if (state === undefined) {
      const added: State = { waiting: 0, timer: undefined };
      session.once("close", () => clearTimeout(added.timer));
      this.#states.set(session, added);
      state = added;
    }
    state.waiting += 1;
    if (state.waiting <= MOST_WAITING) return;
    // Also where it was stopped: Node starts again by itself when it had stopped, too, to write.
    handleOf(session)?.readStop();
    const paused = state;
    state.timer ??= setTimeout(() => resume(session, paused), LONGEST_PAUSE_MS).unref();
  }

  /** A call of the connection waits no more. */
  remove(session: Http2Session): void {
    const state = this.#states.get(session);
    if (state === undefined) return;
    state.waiting -= 1;
    if (state.timer === undefined || state.waiting > MOST_WAITING / 2) return;
    clearTimeout(state.timer);
    resume(session, state);
  }
}

function resume(session: Http2Session, state: State): void {
  state.timer = undefined;
  handleOf(session)?.readStart();
}

/** Undefined when the connection is gone. */
function handleOf(session: Http2Session): Handle | undefined {
  if (session.destroyed) return undefined;
  const handle: unknown = Reflect.get(session.socket, "_handle");
  return isHandle(handle) ? handle : undefined;
}

function isHandle(handle: unknown): handle is Handle {
  return typeof handle === "object" && handle !== null && "readStop" in handle && "readStart" in handle;
}
