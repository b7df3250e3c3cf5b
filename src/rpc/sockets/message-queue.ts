import type { ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../contract/message-limit.ts";
import { FairQueue } from "../../scheduling/fair-queue.ts";
import { networkOf } from "../callers/network.ts";
import { toConnectError } from "../errors/errors.ts";
import { declaredBytes, type Encoding, inflate, inflateNow, TooLong, tooLarge } from "./inflate.ts";
import { type ReceiveBudget, TOO_MUCH } from "./receive-budget.ts";

/**
 * Up to here a compressed message is decompressed where it comes: 16 KiB take 50 µs, less than handing them to a thread. The
 * usual messages of claws that compress are of that size, and wait for nobody.
 */
const SMALL_BYTES = 16_384;
/**
 * From here on a message that came as it is waits for its turn, too: a megabyte takes as much reading as if it had been
 * compressed. A thousand usual beats are 60 KB.
 */
export const LARGE_BYTES = 131_072;
/**
 * The longest pause after a message for each of its bytes, in milliseconds: 100 ms after a megabyte. So at least 8 MiB a second
 * pass, however busy the process is with other things: claws that compress a thousand beats, 60 KB, must not fall behind. A
 * megabyte of JSON takes 20 ms of a processor, and on one that others use, too, several times that.
 */
const LONGEST_PAUSE_MS_PER_BYTE = 100 / MAX_MESSAGE_BYTES;
/** A pause that is shorter than a timer can be is one turn of the event loop. */
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
 * Messages of both listeners that are compressed, or large. They are decompressed and handed over one at a time, and one
 * connection after the other, by bytes after decompression; and as much time as one took is then everybody else's. So
 * however many come, they take half of the process at most, one thread, and the memory of one message.
 */
export class MessageQueue {
  readonly budget: ReceiveBudget;
  readonly #waiting = new FairQueue<Waiting>();
  #busy = false;
  #handedOver = 0;

  constructor(budget: ReceiveBudget) {
    this.budget = budget;
  }

  /** How many messages wait for their turn. */
  get size(): number {
    return this.#waiting.size;
  }

  /** How many had their turn since the start. */
  get handedOver(): number {
    return this.#handedOver;
  }

  /**
   * For the messages of one call. `streams`: it may have many, one after the other; else what its only one takes is held
   * until the call is over. Has to be closed then.
   */
  input(connection: object | undefined, address: string, streams: boolean): MessageInput {
    return new MessageInput(this, connection, networkOf(address), streams);
  }

  /** For `MessageInput`. Returns what ends the waiting. */
  wait(network: string, connection: object | undefined, waiting: Waiting): () => void {
    const forget = this.#waiting.push(network, connection, waiting);
    if (!this.#busy) {
      this.#busy = true;
      // Not within the reading of the network.
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
    void this.#handOver(item, charge).then((bytes) =>
      // The reader that waited for the message has read it by then.
      setImmediate(() => this.#pause(Math.min(performance.now() - begun, bytes * LONGEST_PAUSE_MS_PER_BYTE))),
    );
  }

  #pause(ms: number): void {
    if (ms < SHORTEST_PAUSE_MS) setImmediate(() => this.#turn());
    else setTimeout(() => this.#turn(), ms);
  }

  /** How many bytes it was, also where that is no message. Never rejects. */
  async #handOver(waiting: Waiting, charge: (cost: number) => void): Promise<number> {
    const { bytes, encoding, declared, input, resolve, reject } = waiting;
    try {
      const whole = encoding === undefined ? asBuffer(bytes) : await this.#inflate(bytes, encoding, declared, input);
      input.hold(whole.length);
      charge(whole.length - declared);
      this.#handedOver += 1;
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
    // It said less than it is. Two members of gzip, one after the other, do that.
    input.hold(MAX_MESSAGE_BYTES);
    return await inflate(bytes, encoding, MAX_MESSAGE_BYTES);
  }
}

/** The messages of one call, on their way to whoever reads them. */
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
   * The message, decompressed, when it is its turn; at once where it is small. The next one only after this one was read.
   *
   * @throws ConnectError, or rejects with it: damaged, too large, or too much for the connection, or in all, at this moment
   */
  read(bytes: Uint8Array, encoding: Encoding | undefined): Buffer | Promise<Buffer> {
    // What was held for the last one is not any more: the next is asked for when that was read.
    if (this.#streams) this.hold(0);
    let declared = bytes.length;
    if (encoding !== undefined) {
      if (bytes.length === 0) return Buffer.alloc(0);
      declared = declaredBytes(bytes, encoding);
      if (declared > MAX_MESSAGE_BYTES) throw tooLarge();
      // A megabyte may say that it becomes nothing, and take a tenth of a second.
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
    // A stream waits with what it is now, and is not read meanwhile. A call that waits is one of many: what they will be,
    // decompressed, must fit.
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

  /** Notes how many bytes this call holds. False: more than it may; they are held all the same. */
  hold(bytes: number): boolean {
    if (this.#closed) return true;
    const more = bytes - this.#held;
    this.#held = bytes;
    return this.#queue.budget.hold(this.#connection, more);
  }

  /** The call is over. What waits is not read any more, and is not kept: nobody counts it. */
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
