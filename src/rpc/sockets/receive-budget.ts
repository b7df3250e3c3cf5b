import type { ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../contract/limits.ts";
import { Refusal } from "../../domain/errors.ts";
import { DEADLINE_EXCEEDED, fromRefusal } from "../errors/errors.ts";

export interface ReceiveLimits {
  /** Bytes of messages that are not read yet, decompressed, of all connections together. */
  readonly totalBytes: number;
  /** The same of one connection. */
  readonly connectionBytes: number;
  /** How long a message may take from its first byte to its last, in milliseconds. */
  readonly messageMs: number;
}

/**
 * A message is held until it is whole, and a connection may have thousands of streams with a megabyte underway on each.
 * Usual messages come whole, in one piece, and hold nothing. 32 MiB are 32 of the greatest from one client; 256 MiB are
 * what a small machine can bear.
 */
export const DEFAULT_RECEIVE_LIMITS: Omit<ReceiveLimits, "messageMs"> = {
  totalBytes: 256 * 1_048_576,
  connectionBytes: 32 * 1_048_576,
};

/** What a piece costs besides its bytes: one byte in a piece of its own takes a hundred. */
const PIECE_BYTES = 128;

/** How soon a client should come again with what was too much for the moment. */
const RETRY_MS = 1_000;

/** Bounds what both listeners hold of messages that are still on their way, or wait for their turn to be read. */
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

  /** For one request on a connection. `enveloped`: its bytes are frames of messages, else they are one message. */
  request(connection: object | undefined, enveloped: boolean, onExcess: (error: ConnectError) => void): Receiving {
    const hold = (bytes: number): boolean => this.hold(connection, bytes);
    return new Receiving(hold, enveloped, this.limits.messageMs, onExcess);
  }

  /**
   * Counts so many bytes more, or fewer, that a connection holds; undefined: one that is gone. False: more than it may, or
   * than all may; they are counted all the same.
   */
  hold(connection: object | undefined, bytes: number): boolean {
    const held = (connection === undefined ? undefined : this.#connections.get(connection)) ?? { bytes: 0 };
    if (connection !== undefined) this.#connections.set(connection, held);
    this.#total += bytes;
    held.bytes += bytes;
    return bytes <= 0 || (held.bytes <= this.limits.connectionBytes && this.#total <= this.#mostFor(held.bytes));
  }

  /** Whether a connection may hold one message more, of any size. */
  hasCapacity(connection: object | undefined): boolean {
    const after = (connection === undefined ? 0 : (this.#connections.get(connection)?.bytes ?? 0)) + MAX_MESSAGE_BYTES;
    return after <= this.limits.connectionBytes && this.#total + MAX_MESSAGE_BYTES <= this.#mostFor(after);
  }

  /**
   * What all may hold together where one connection holds so much. A quarter is left to those that hold no more than one
   * message, so that a few that hold all they can do not keep the others from sending.
   */
  #mostFor(connectionBytes: number): number {
    const { totalBytes } = this.limits;
    return connectionBytes <= MAX_MESSAGE_BYTES + PIECE_BYTES ? totalBytes : (totalBytes / 4) * 3;
  }
}

/** A request whose bytes come in. To be closed when it is over. */
export class Receiving {
  readonly #hold: (bytes: number) => boolean;
  readonly #enveloped: boolean;
  readonly #messageMs: number;
  readonly #onExcess: (error: ConnectError) => void;
  #held = 0;
  #over = false;
  #timer: NodeJS.Timeout | undefined;
  /** Bytes still missing: of the five that begin an envelope, and of what is in it. */
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

  /** Notes a piece. Tells once, by `onExcess`, when it is too much or too late; the request has to be ended then. */
  add(piece: Uint8Array): void {
    if (this.#over) return;
    const unfinished = this.#enveloped ? this.#walk(piece) : piece.length;
    // All that came before belongs to the same message, unless one ended in this piece.
    const bytes = unfinished === 0 ? 0 : (unfinished === piece.length ? this.#held : 0) + unfinished + PIECE_BYTES;
    const before = this.#held;
    this.#held = bytes;
    if (bytes === 0) this.#stopClock();
    else if (unfinished < piece.length || before === 0) this.#startClock();
    if (bytes !== before && !this.#hold(bytes - before)) this.#end(TOO_MUCH);
  }

  close(): void {
    this.#over = true;
    this.#stopClock();
    if (this.#held > 0) this.#hold(-this.#held);
    this.#held = 0;
  }

  /** How many bytes at the piece's end belong to a message that is not whole; all of them where none ended in it. */
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

  #startClock(): void {
    this.#stopClock();
    // A body without envelopes has a clock of its own.
    if (this.#enveloped) this.#timer = setTimeout(() => this.#end(DEADLINE_EXCEEDED), this.#messageMs);
  }

  #stopClock(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #end(error: ConnectError): void {
    this.close();
    this.#onExcess(error);
  }
}

const HEAD_BYTES = 5;

/** One for all: those who send too much send much, and an error costs its stack. */
export const TOO_MUCH: ConnectError = fromRefusal(
  new Refusal(
    "LIMIT_EXCEEDED",
    "too many bytes of messages that are not read yet: send messages whole, and fewer at once",
    { metadata: { limit: "unfinishedBytes" }, retryAfterMs: RETRY_MS },
  ),
);
