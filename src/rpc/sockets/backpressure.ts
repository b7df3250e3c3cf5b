import type { Http2Session } from "node:http2";

/**
 * How many calls of one connection may wait before the server stops reading from it: as many as start in two turns. One read of
 * 64 KiB may bring thousands of small calls. The server stops before the next read.
 */
const MOST_WAITING = 64;

/**
 * The longest pause of a connection, in milliseconds. Then the server reads about 64 KiB. Pings, and messages of open streams, wait
 * at most this long for each read ahead of them. Clients wait seconds for the answer to a ping.
 */
const LONGEST_PAUSE_MS = 100;

interface State {
  waiting: number;
  /** Set during a pause. */
  timer: NodeJS.Timeout | undefined;
}

/** Node's handle below a socket. HTTP/2 reads from it, and has no other way to pause. */
interface Handle {
  readStop(): void;
  readStart(): void;
}

/** Pauses HTTP/2 connections whose calls arrive faster than the scheduler starts them. */
export class Backpressure {
  readonly #states = new WeakMap<Http2Session, State>();

  /** Counts a call of the connection that waits. */
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
    // Also during a pause: Node resumes reading by itself after it stopped for a write.
    handleOf(session)?.readStop();
    const paused = state;
    state.timer ??= setTimeout(() => resume(session, paused), LONGEST_PAUSE_MS).unref();
  }

  /** Counts a call of the connection that no longer waits. */
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

/** Undefined if the connection is closed. */
function handleOf(session: Http2Session): Handle | undefined {
  if (session.destroyed) return undefined;
  const handle: unknown = Reflect.get(session.socket, "_handle");
  return isHandle(handle) ? handle : undefined;
}

function isHandle(handle: unknown): handle is Handle {
  return typeof handle === "object" && handle !== null && "readStop" in handle && "readStart" in handle;
}
