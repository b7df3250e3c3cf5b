import { Code, type ConnectError } from "@connectrpc/connect";
import type { ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { fromLibrary, toConnectError } from "../errors/errors.ts";
import type { Encoding } from "../sockets/inflate.ts";
import { LARGE_BYTES, type MessageInput } from "../sockets/message-queue.ts";
import { COMPRESSED } from "../sockets/whole-messages.ts";

/** Before a message: a flag and its length. */
const HEAD_BYTES = 5;

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
    throw new Error("this version of @grpc/grpc-js decompresses elsewhere: see src/rpc/grpc/grpc-input.ts");
  }
  let input: MessageInput | undefined;
  const read = (message: Buffer): Buffer | Promise<Buffer> => {
    const bytes = message.subarray(HEAD_BYTES);
    const compressed = ((message[0] ?? 0) & COMPRESSED) !== 0;
    if (!compressed && bytes.length < LARGE_BYTES) return bytes;
    input ??= makeInput();
    if (!compressed) return input.read(bytes, undefined);
    if (encoding === undefined || encoding === "identity") throw undeclared();
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

/** In the words of Connect's library, which have their explanation. grpc-js would take the bytes as they are. */
function undeclared(): ConnectError {
  return fromLibrary(Code.Internal, "received compressed envelope, but do not know how to decompress");
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
