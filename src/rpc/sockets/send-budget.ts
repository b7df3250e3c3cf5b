import type { ConnectError } from "@connectrpc/connect";
import type { Sending } from "@harborforge/connect-grpc-js";
import { Refusal } from "../../domain/errors.ts";
import { fromRefusal } from "../errors/error-table.ts";

export interface SendLimits {
  /** Bytes that are written and not sent, of all connections together. */
  readonly totalBytes: number;
  /** The same of one connection. */
  readonly connectionBytes: number;
}

/**
 * The process holds a response until it is sent or its stream ends, and a page of a thousand agents is a hundred kilobytes. The
 * same limits as for requests: 32 MiB are three hundred such pages, and a small machine can hold 256 MiB.
 */
export const DEFAULT_SEND_LIMITS: SendLimits = { totalBytes: 256 * 1_048_576, connectionBytes: 32 * 1_048_576 };

/** A connection below this size may still send when the large ones have used three quarters of the total. */
const SMALL_BYTES = 262_144;
/** When a client should retry a call that was rejected because it has to read first. */
const RETRY_MS = 1_000;

interface Held {
  bytes: number;
  /** Resumes streams that wait for capacity. */
  readonly waiting: Set<() => void>;
}

/** Limits the responses that both listeners hold for clients that do not read. */
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

  /** Whether a connection may be given more to send; undefined for one that is closed. */
  hasCapacity(connection: object | undefined): boolean {
    const bytes = connection === undefined ? 0 : (this.#connections.get(connection)?.bytes ?? 0);
    return this.#fits(bytes);
  }

  /** For the response, or responses, of one call. */
  sending(connection: object | undefined): Sending {
    const held: Held = (connection === undefined ? undefined : this.#connections.get(connection)) ?? {
      bytes: 0,
      waiting: new Set(),
    };
    if (connection !== undefined) this.#connections.set(connection, held);
    return new CountedSending(
      (bytes) => this.#hold(held, bytes),
      () => this.#fits(held.bytes),
      (resume) => {
        held.waiting.add(resume);
        this.#waiting.add(held);
        return () => {
          held.waiting.delete(resume);
          if (held.waiting.size === 0) this.#waiting.delete(held);
        };
      },
    );
  }

  #hold(held: Held, bytes: number): void {
    this.#total += bytes;
    held.bytes += bytes;
    if (bytes < 0 && this.#waiting.size > 0) this.#resume();
  }

  #resume(): void {
    for (const held of [...this.#waiting]) this.#resumeOne(held);
  }

  /** Resumes one stream after the other, so that what one writes is counted before the next one is asked. */
  #resumeOne(held: Held): void {
    const [resume] = held.waiting;
    if (resume === undefined || !this.#fits(held.bytes)) return;
    held.waiting.delete(resume);
    if (held.waiting.size === 0) this.#waiting.delete(held);
    // Not within the callback of the write that was sent.
    setImmediate(() => {
      resume();
      // If it had nothing to write, no later write would resume the next one.
      this.#resumeOne(held);
    });
  }

  #fits(bytes: number): boolean {
    const { totalBytes, connectionBytes } = this.#limits;
    return bytes < connectionBytes && this.#total < (bytes <= SMALL_BYTES ? totalBytes : (totalBytes / 4) * 3);
  }
}

class CountedSending implements Sending {
  readonly #hold: (bytes: number) => void;
  readonly #fits: () => boolean;
  readonly #wait: (resume: () => void) => () => void;
  #held = 0;
  #closed = false;
  #stopWaiting: (() => void) | undefined;

  constructor(hold: (bytes: number) => void, fits: () => boolean, wait: (resume: () => void) => () => void) {
    this.#hold = hold;
    this.#fits = fits;
    this.#wait = wait;
  }

  get hasCapacity(): boolean {
    return this.#fits();
  }

  add(bytes: number): void {
    if (this.#closed) return;
    this.#held += bytes;
    this.#hold(bytes);
  }

  sent(bytes: number): void {
    if (this.#closed) return;
    this.#held -= bytes;
    this.#hold(-bytes);
  }

  onCapacity(resume: () => void): void {
    if (this.#closed || this.#stopWaiting !== undefined) return;
    this.#stopWaiting = this.#wait(() => {
      this.#stopWaiting = undefined;
      if (!this.#closed) resume();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopWaiting?.();
    if (this.#held > 0) this.#hold(-this.#held);
    this.#held = 0;
  }
}

/** The error for a call on a connection that does not read its responses. Made once: an error costs its stack. */
export const TOO_MUCH_UNREAD: ConnectError = fromRefusal(
  new Refusal("LIMIT_EXCEEDED", "too many bytes of responses wait to be read on this connection: read them first", {
    metadata: { limit: "unreadBytes" },
    retryAfterMs: RETRY_MS,
  }),
);
