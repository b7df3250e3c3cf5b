import type { ConnectError } from "@connectrpc/connect";
import { Refusal } from "../../domain/errors.ts";
import { fromRefusal } from "../errors/errors.ts";

export interface SendLimits {
  /** Bytes that are written and not sent, of all connections together. */
  readonly totalBytes: number;
  /** The same of one connection. */
  readonly connectionBytes: number;
}

/**
 * What a client does not read is held until it is sent or its stream ends, and a page of a thousand agents is a hundred
 * kilobytes. As much as of what comes in: 32 MiB are three hundred such pages, 256 MiB what a small machine can bear.
 */
export const DEFAULT_SEND_LIMITS: SendLimits = { totalBytes: 256 * 1_048_576, connectionBytes: 32 * 1_048_576 };

/** A connection that holds no more than so much may send where others have used up their three quarters of all. */
const SMALL_BYTES = 262_144;
/** How soon a client should come again that has to read first. */
const RETRY_MS = 1_000;

interface Held {
  bytes: number;
  /** Streams that go on when there is room. */
  readonly waiting: Set<() => void>;
}

/** Bounds what both listeners hold of answers that their clients do not read. */
export class SendBudget {
  readonly #limits: SendLimits;
  readonly #connections = new WeakMap<object, Held>();
  /** Connections with streams that wait. */
  readonly #waiting = new Set<Held>();
  #total = 0;

  constructor(limits: SendLimits = DEFAULT_SEND_LIMITS) {
    this.#limits = limits;
  }

  /** Bytes that are held, of all connections. */
  get total(): number {
    return this.#total;
  }

  /** Whether a connection may be given more to send; undefined: one that is gone. */
  hasRoom(connection: object | undefined): boolean {
    const bytes = connection === undefined ? 0 : (this.#connections.get(connection)?.bytes ?? 0);
    return this.#fits(bytes);
  }

  /** For the answer, or answers, of one call. */
  sending(connection: object | undefined): Sending {
    const held: Held = (connection === undefined ? undefined : this.#connections.get(connection)) ?? {
      bytes: 0,
      waiting: new Set(),
    };
    if (connection !== undefined) this.#connections.set(connection, held);
    return new Sending(
      (bytes) => this.#hold(held, bytes),
      () => this.#fits(held.bytes),
      (go) => {
        held.waiting.add(go);
        this.#waiting.add(held);
        return () => {
          held.waiting.delete(go);
          if (held.waiting.size === 0) this.#waiting.delete(held);
        };
      },
    );
  }

  #hold(held: Held, bytes: number): void {
    this.#total += bytes;
    held.bytes += bytes;
    if (bytes < 0 && this.#waiting.size > 0) this.#letGo();
  }

  #letGo(): void {
    for (const held of [...this.#waiting]) this.#letOneGo(held);
  }

  /** One stream after the other, while there is room: what it writes is counted before the next one is asked. */
  #letOneGo(held: Held): void {
    const [go] = held.waiting;
    if (go === undefined || !this.#fits(held.bytes)) return;
    held.waiting.delete(go);
    if (held.waiting.size === 0) this.#waiting.delete(held);
    // Not within whatever was sent just now.
    setImmediate(() => {
      go();
      // It may have had nothing to write, which nobody would hear of.
      this.#letOneGo(held);
    });
  }

  #fits(bytes: number): boolean {
    const { totalBytes, connectionBytes } = this.#limits;
    return bytes < connectionBytes && this.#total < (bytes <= SMALL_BYTES ? totalBytes : (totalBytes / 4) * 3);
  }
}

/** What one call has written and not sent. To be closed when it is over. */
export class Sending {
  readonly #hold: (bytes: number) => void;
  readonly #fits: () => boolean;
  readonly #wait: (go: () => void) => () => void;
  #held = 0;
  #closed = false;
  #forget: (() => void) | undefined;

  constructor(hold: (bytes: number) => void, fits: () => boolean, wait: (go: () => void) => () => void) {
    this.#hold = hold;
    this.#fits = fits;
    this.#wait = wait;
  }

  /** Whether the connection may be given more. */
  get hasRoom(): boolean {
    return this.#fits();
  }

  /** So much is about to be written. */
  add(bytes: number): void {
    if (this.#closed) return;
    this.#held += bytes;
    this.#hold(bytes);
  }

  /** So much of it was sent. */
  sent(bytes: number): void {
    if (this.#closed) return;
    this.#held -= bytes;
    this.#hold(-bytes);
  }

  /** Calls `go` once when there may be room. */
  whenRoom(go: () => void): void {
    if (this.#closed || this.#forget !== undefined) return;
    this.#forget = this.#wait(() => {
      this.#forget = undefined;
      if (!this.#closed) go();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#forget?.();
    if (this.#held > 0) this.#hold(-this.#held);
    this.#held = 0;
  }
}

/** The refusal of a call on a connection that does not read what it was answered. One for all. */
export const TOO_MUCH_UNREAD: ConnectError = fromRefusal(
  new Refusal("LIMIT_EXCEEDED", "too many bytes of answers wait to be read on this connection: read them first", {
    metadata: { limit: "unreadBytes" },
    retryAfterMs: RETRY_MS,
  }),
);
