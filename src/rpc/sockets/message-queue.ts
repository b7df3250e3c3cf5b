import type { ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import { FairQueue } from "../../../common/scheduling/fair-queue.ts";
import { networkOf } from "../callers/network.ts";
import { toConnectError } from "../errors/error-table.ts";
import { declaredBytes, type Encoding, inflate, inflateNow, TooLong, tooLarge } from "./inflate.ts";
import { type ReceiveBudget, TOO_MUCH } from "./receive-budget.ts";

/**
 * A compressed message of up to this size is decompressed at once: 16 KiB take 50 µs, less than passing them to a thread. The
 * usual messages of claws that compress are of that size, and do not wait.
 */
const SMALL_BYTES = 16_384;
/**
 * An uncompressed message from this size on waits in the queue, too: a megabyte takes as long to decode as if it had been
 * compressed. A thousand usual beats are 60 KB.
 */
export const LARGE_BYTES = 131_072;
/**
 * The longest pause after a message for each of its bytes, in milliseconds: 100 ms after a megabyte. So at least 8 MiB a second
 * pass, however busy the process is: claws that compress a thousand beats, 60 KB, must not fall behind. A megabyte of JSON takes
 * 20 ms of processor time, and several times that on a shared processor.
 */
const LONGEST_PAUSE_MS_PER_BYTE = 100 / MAX_MESSAGE_BYTES;
/** A shorter pause is one turn of the event loop: timers count whole milliseconds. */
const SHORTEST_PAUSE_MS = 1;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly encoding: Encoding | undefined;
  readonly declared: number;
  readonly input: MessageInput;
  readonly resolve: (bytes: Buffer) => void;
  readonly reject: (error: ConnectError) => void;
}

/**
 * The compressed and the large messages of both listeners. The queue decompresses and delivers one at a time, fairly between
 * connections by their bytes after decompression. After each message it pauses for as long as the message took. So these
 * messages use half of the process at most, one thread, and the memory of one message.
 */
export class MessageQueue {
  readonly budget: ReceiveBudget;
  readonly #waiting = new FairQueue<Waiting>();
  #busy = false;
  #delivered = 0;

  constructor(budget: ReceiveBudget) {
    this.budget = budget;
  }

  /** How many messages wait. */
  get size(): number {
    return this.#waiting.size;
  }

  /** How many messages were delivered since the start. */
  get delivered(): number {
    return this.#delivered;
  }

  /**
   * For the messages of one call, which has to close it. `streams`: the call may have many messages, one after the other.
   * Otherwise the bytes of its only message count until the call ends.
   */
  input(connection: object | undefined, address: string, streams: boolean): MessageInput {
    return new MessageInput(this, connection, networkOf(address), streams);
  }

  /** For `MessageInput`. Returns a function that removes the message from the queue. */
  wait(network: string, connection: object | undefined, waiting: Waiting): () => void {
    const forget = this.#waiting.push(network, connection, waiting);
    if (!this.#busy) {
      this.#busy = true;
      // Not within the read from the network.
      setImmediate(() => this.#turn());
    }
    return forget;
  }

  #turn(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#busy = false;
      return;
    }
    const { item, charge } = next;
    charge(item.declared);
    const begun = performance.now();
    void this.#deliver(item, charge).then((bytes) =>
      // By then the reader that waited for the message has decoded it.
      setImmediate(() => this.#pause(Math.min(performance.now() - begun, bytes * LONGEST_PAUSE_MS_PER_BYTE))),
    );
  }

  #pause(ms: number): void {
    if (ms < SHORTEST_PAUSE_MS) setImmediate(() => this.#turn());
    else setTimeout(() => this.#turn(), ms);
  }

  /** Resolves to the size in bytes, also if the message is rejected. Never rejects. */
  async #deliver(waiting: Waiting, charge: (cost: number) => void): Promise<number> {
    const { bytes, encoding, declared, input, resolve, reject } = waiting;
    try {
      const whole = encoding === undefined ? asBuffer(bytes) : await this.#inflate(bytes, encoding, declared, input);
      input.hold(whole.length);
      charge(whole.length - declared);
      this.#delivered += 1;
      resolve(whole);
      return whole.length;
    } catch (thrown) {
      reject(thrown instanceof TooLong ? tooLarge() : toConnectError(thrown));
      return declared;
    }
  }

  async #inflate(bytes: Uint8Array, encoding: Encoding, declared: number, input: MessageInput): Promise<Buffer> {
    input.hold(declared);
    try {
      return await inflate(bytes, encoding, declared);
    } catch (thrown) {
      if (!(thrown instanceof TooLong) || declared >= MAX_MESSAGE_BYTES) throw thrown;
    }
    // The declared size was too small, as with two gzip members one after the other.
    input.hold(MAX_MESSAGE_BYTES);
    return await inflate(bytes, encoding, MAX_MESSAGE_BYTES);
  }
}

/** Decompresses the messages of one call, and counts their bytes. */
export class MessageInput {
  readonly #queue: MessageQueue;
  readonly #connection: object | undefined;
  readonly #network: string;
  readonly #streams: boolean;
  #held = 0;
  #closed = false;
  #reject: ((error: ConnectError) => void) | undefined;
  #forget: (() => void) | undefined;

  constructor(queue: MessageQueue, connection: object | undefined, network: string, streams: boolean) {
    this.#queue = queue;
    this.#connection = connection;
    this.#network = network;
    this.#streams = streams;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * The decompressed message; at once if it is small. The caller asks for the next message after it has decoded this one.
   *
   * @throws ConnectError, or rejects with it: the message is damaged or too large, or the budget is used up
   */
  read(bytes: Uint8Array, encoding: Encoding | undefined): Buffer | Promise<Buffer> {
    // The last message is decoded by now.
    if (this.#streams) this.hold(0);
    let declared = bytes.length;
    if (encoding !== undefined) {
      if (bytes.length === 0) return Buffer.alloc(0);
      declared = declaredBytes(bytes, encoding);
      if (declared > MAX_MESSAGE_BYTES) throw tooLarge();
      // A compressed megabyte may declare a small size, and take a tenth of a second.
      if (Math.max(declared, bytes.length) <= SMALL_BYTES) {
        try {
          return inflateNow(bytes, encoding, declared);
        } catch (thrown) {
          if (!(thrown instanceof TooLong)) throw thrown;
        }
      }
    } else if (bytes.length < LARGE_BYTES) {
      return asBuffer(bytes);
    }
    // A stream counts its compressed bytes, because it is not read while it waits. Calls with one message count the size after
    // decompression, because a connection may have many of them.
    const fits = this.hold(this.#streams ? bytes.length : declared);
    if (!fits) {
      this.hold(0);
      throw TOO_MUCH;
    }
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      this.#forget = this.#queue.wait(this.#network, this.#connection, {
        bytes,
        encoding,
        declared,
        input: this,
        resolve,
        reject,
      });
    });
  }

  /** Sets the bytes that this call holds. Returns false if that is more than it may; it counts them in either case. */
  hold(bytes: number): boolean {
    if (this.#closed) return true;
    const more = bytes - this.#held;
    this.#held = bytes;
    return this.#queue.budget.hold(this.#connection, more);
  }

  /** Ends with the call. Removes a waiting message from the queue, and rejects its promise with `error`, if given. */
  close(error?: ConnectError): void {
    if (this.#closed) return;
    this.hold(0);
    this.#closed = true;
    this.#forget?.();
    if (error !== undefined) this.#reject?.(error);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
