import type { ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import { Refusal } from "../../domain/errors.ts";
import { DEADLINE_EXCEEDED, fromRefusal } from "../errors/error-table.ts";

export interface ReceiveLimits {
  /** Bytes of unread messages, decompressed, of all connections together. */
  readonly totalBytes: number;
  /** The same of one connection. */
  readonly connectionBytes: number;
  /** How long a message may take from its first byte to its last, in milliseconds. */
  readonly messageMs: number;
}

/**
 * The process holds a message until it is complete, and a connection may send a megabyte on each of thousands of streams. Usual
 * messages arrive in one piece and hold nothing. 32 MiB are 32 messages of the largest size from one client; a small machine can
 * hold 256 MiB.
 */
export const DEFAULT_RECEIVE_LIMITS: Omit<ReceiveLimits, "messageMs"> = {
  totalBytes: 256 * 1_048_576,
  connectionBytes: 32 * 1_048_576,
};

/** The overhead of a piece in bytes: a piece of one byte takes a hundred. */
const PIECE_BYTES = 128;

/** When a client should retry a call that was rejected because the budget was used up. */
const RETRY_MS = 1_000;

/** Limits the bytes that both listeners hold of incomplete messages, and of messages that wait in the queue. */
export class ReceiveBudget {
  readonly limits: ReceiveLimits;
  readonly #connections = new WeakMap<object, { bytes: number }>();
  #total = 0;

  constructor(limits: ReceiveLimits) {
    this.limits = limits;
  }

  /** Bytes that are held, of all connections. */
  get total(): number {
    return this.#total;
  }

  /** Counts one request. `enveloped`: its bytes are framed messages; otherwise they are one message. */
  request(connection: object | undefined, enveloped: boolean, onExcess: (error: ConnectError) => void): Receiving {
    const hold = (bytes: number): boolean => this.hold(connection, bytes);
    return new Receiving(hold, enveloped, this.limits.messageMs, onExcess);
  }

  /**
   * Adds to the bytes that a connection holds; undefined for one that is closed. Returns false if the connection, or all together,
   * hold more than they may. It counts the bytes in either case.
   */
  hold(connection: object | undefined, bytes: number): boolean {
    const held = (connection === undefined ? undefined : this.#connections.get(connection)) ?? { bytes: 0 };
    if (connection !== undefined) this.#connections.set(connection, held);
    this.#total += bytes;
    held.bytes += bytes;
    return bytes <= 0 || (held.bytes <= this.limits.connectionBytes && this.#total <= this.#mostFor(held.bytes));
  }

  /** Whether a connection may hold one more message of the largest size. */
  hasCapacity(connection: object | undefined): boolean {
    const after = (connection === undefined ? 0 : (this.#connections.get(connection)?.bytes ?? 0)) + MAX_MESSAGE_BYTES;
    return after <= this.limits.connectionBytes && this.#total + MAX_MESSAGE_BYTES <= this.#mostFor(after);
  }

  /**
   * The total limit for a connection that holds so much. A quarter of the total is reserved for connections that hold one message
   * at most, so that a few large ones do not block the others.
   */
  #mostFor(connectionBytes: number): number {
    const { totalBytes } = this.limits;
    return connectionBytes <= MAX_MESSAGE_BYTES + PIECE_BYTES ? totalBytes : (totalBytes / 4) * 3;
  }
}

/** Counts the incomplete message of one request. The request closes it when it ends. */
export class Receiving {
  readonly #hold: (bytes: number) => boolean;
  readonly #enveloped: boolean;
  readonly #messageMs: number;
  readonly #onExcess: (error: ConnectError) => void;
  #held = 0;
  #over = false;
  #timer: NodeJS.Timeout | undefined;
  /** Bytes still missing of the envelope's five-byte header and of its content. */
  #headLeft = HEAD_BYTES;
  #length = 0;
  #bodyLeft = 0;

  constructor(
    hold: (bytes: number) => boolean,
    enveloped: boolean,
    messageMs: number,
    onExcess: (error: ConnectError) => void,
  ) {
    this.#hold = hold;
    this.#enveloped = enveloped;
    this.#messageMs = messageMs;
    this.#onExcess = onExcess;
  }

  /** Counts a piece. Calls `onExcess` once if it is too large or too late; the caller has to end the request then. */
  add(piece: Uint8Array): void {
    if (this.#over) return;
    const unfinished = this.#enveloped ? this.#walk(piece) : piece.length;
    // The earlier pieces belong to the same message, unless a message ended in this piece.
    const bytes = unfinished === 0 ? 0 : (unfinished === piece.length ? this.#held : 0) + unfinished + PIECE_BYTES;
    const before = this.#held;
    this.#held = bytes;
    if (bytes === 0) this.#stopTimer();
    else if (unfinished < piece.length || before === 0) this.#startTimer();
    if (bytes !== before && !this.#hold(bytes - before)) this.#end(TOO_MUCH);
  }

  close(): void {
    this.#over = true;
    this.#stopTimer();
    if (this.#held > 0) this.#hold(-this.#held);
    this.#held = 0;
  }

  /** How many bytes at the end of the piece belong to an incomplete message; all of them if no message ended in it. */
  #walk(piece: Uint8Array): number {
    let at = 0;
    let wholeUntil = 0;
    while (at < piece.length) {
      if (this.#headLeft > 0) {
        const byte = piece[at] ?? 0;
        at += 1;
        this.#headLeft -= 1;
        // The first is the flags.
        if (this.#headLeft < HEAD_BYTES - 1) this.#length = this.#length * 256 + byte;
        if (this.#headLeft > 0) continue;
        this.#bodyLeft = this.#length;
        this.#length = 0;
      } else {
        const taken = Math.min(this.#bodyLeft, piece.length - at);
        this.#bodyLeft -= taken;
        at += taken;
      }
      if (this.#bodyLeft === 0) {
        this.#headLeft = HEAD_BYTES;
        wholeUntil = at;
      }
    }
    return piece.length - wholeUntil;
  }

  #startTimer(): void {
    this.#stopTimer();
    // A body without envelopes has its own timer.
    if (this.#enveloped) this.#timer = setTimeout(() => this.#end(DEADLINE_EXCEEDED), this.#messageMs);
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #end(error: ConnectError): void {
    this.close();
    this.#onExcess(error);
  }
}

const HEAD_BYTES = 5;

/** Made once: such clients get many of them, and an error costs its stack. */
export const TOO_MUCH: ConnectError = fromRefusal(
  new Refusal("LIMIT_EXCEEDED", "too many bytes of unread messages: send messages whole, and fewer at once", {
    metadata: { limit: "unfinishedBytes" },
    retryAfterMs: RETRY_MS,
  }),
);
