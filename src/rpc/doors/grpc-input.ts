import { Code, type ConnectError } from "@connectrpc/connect";
import type { ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { fromLibrary, toConnectError } from "../errors.ts";
import type { Encoding } from "./inflate.ts";
import { LARGE_BYTES, type MessageInput } from "./message-queue.ts";

/** Before a message: a flag and its length. */
const HEAD_BYTES = 5;
const COMPRESSED = 1;

/**
 * Has a call's input, which is made when it is needed, decompress its messages, and not grpc-js, which begins with all that come
 * at once. `fail` ends the call with an error.
 *
 * @throws Error for a version of grpc-js that decompresses elsewhere
 */
export function takeOverMessages(
  call: ServerInterceptingCallInterface,
  encoding: string | undefined,
  makeInput: () => MessageInput,
  fail: (error: ConnectError) => void,
): void {
  if (typeof Reflect.get(call, "decompressMessage") !== "function") {
    throw new Error("this version of @grpc/grpc-js decompresses elsewhere: see src/rpc/doors/grpc-input.ts");
  }
  let input: MessageInput | undefined;
  const read = (message: Buffer): Buffer | Promise<Buffer> => {
    const bytes = message.subarray(HEAD_BYTES);
    const compressed = message[0] === COMPRESSED && encoding !== undefined && encoding !== "identity";
    if (!compressed && bytes.length < LARGE_BYTES) return bytes;
    input ??= makeInput();
    if (!compressed) return input.read(bytes, undefined);
    if (!isEncoding(encoding)) throw fromLibrary(Code.Unimplemented, `unknown compression "${encoding}"`);
    return input.read(bytes, encoding);
  };
  // What it throws, or rejects with, grpc-js would send without details. It waits for ever instead: the call is over.
  const failed = (thrown: unknown): Promise<never> => {
    fail(toConnectError(thrown));
    return new Promise(() => undefined);
  };
  if (encoding === undefined || encoding === "identity") {
    Reflect.set(call, "decompressMessage", (message: Buffer) => {
      try {
        const bytes = read(message);
        return bytes instanceof Promise ? bytes.catch(failed) : bytes;
      } catch (thrown) {
        return failed(thrown);
      }
    });
    return;
  }
  const line = new OneByOne();
  const startRead = call.startRead.bind(call);
  call.startRead = () => {
    line.next();
    startRead();
  };
  Reflect.set(call, "decompressMessage", (message: Buffer) =>
    line
      .wait()
      .then(() => read(message))
      .catch(failed),
  );
}

function isEncoding(encoding: string): encoding is Encoding {
  return encoding === "gzip" || encoding === "deflate";
}

/**
 * A piece of the network may hold sixteen small messages, which would be sixteen megabytes: each is decompressed when the
 * one before it has been read, and the next one is asked for.
 */
class OneByOne {
  readonly #waiting: (() => void)[] = [];
  #asked = false;

  wait(): Promise<void> {
    if (this.#asked) {
      this.#asked = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  next(): void {
    const first = this.#waiting.shift();
    if (first === undefined) this.#asked = true;
    else first();
  }
}
