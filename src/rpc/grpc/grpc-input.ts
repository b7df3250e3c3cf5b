import { Code, type ConnectError } from "@connectrpc/connect";
import type { ServerInterceptingCallInterface } from "@grpc/grpc-js";
import { fromLibrary, toConnectError } from "../errors/error-table.ts";
import type { Encoding } from "../sockets/inflate.ts";
import { LARGE_BYTES, type MessageInput } from "../sockets/message-queue.ts";
import { COMPRESSED } from "../sockets/whole-messages.ts";

/** The header of a framed message: a flag and the length. */
const HEAD_BYTES = 5;

/**
 * Makes a call decompress its messages through a `MessageInput`, which `makeInput` creates when it is needed. grpc-js itself would
 * decompress all messages that arrive together at once. `fail` ends the call with an error.
 *
 * @throws Error if this version of grpc-js decompresses elsewhere
 */
export function takeOverMessages(
  call: ServerInterceptingCallInterface,
  encoding: string | undefined,
  makeInput: () => MessageInput,
  fail: (error: ConnectError) => void,
): void {
  if (typeof Reflect.get(call, "decompressMessage") !== "function") {
    throw new Error("This version of @grpc/grpc-js decompresses elsewhere: see src/rpc/grpc/grpc-input.ts.");
  }
  let input: MessageInput | undefined;
  const read = (message: Buffer): Buffer | Promise<Buffer> => {
    const bytes = message.subarray(HEAD_BYTES);
    const compressed = ((message[0] ?? 0) & COMPRESSED) !== 0;
    if (!compressed && bytes.length < LARGE_BYTES) return bytes;
    input ??= makeInput();
    if (!compressed) return input.read(bytes, undefined);
    if (encoding === undefined || encoding === "identity") throw undeclared();
    if (!isEncoding(encoding)) throw unknownEncoding(encoding);
    return input.read(bytes, encoding);
  };
  // grpc-js would send an error of `read` without details. `fail` has ended the call, so this promise never settles.
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
  const turns = new OneByOne();
  const startRead = call.startRead.bind(call);
  call.startRead = () => {
    turns.next();
    startRead();
  };
  Reflect.set(call, "decompressMessage", (message: Buffer) =>
    turns
      .wait()
      .then(() => read(message))
      .catch(failed),
  );
}

/** The text of Connect's library, which `explain` knows. grpc-js would decode the compressed bytes. */
function undeclared(): ConnectError {
  return fromLibrary(Code.Internal, "received compressed envelope, but do not know how to decompress");
}

/** gRPC prescribes the header (grpc/doc/compression.md). */
function unknownEncoding(encoding: string): ConnectError {
  const accepted = "identity,deflate,gzip";
  const text = `unknown compression "${encoding}": supported encodings are ${accepted}`;
  return fromLibrary(Code.Unimplemented, text, new Headers({ "grpc-accept-encoding": accepted }));
}

function isEncoding(encoding: string): encoding is Encoding {
  return encoding === "gzip" || encoding === "deflate";
}

/**
 * Decompresses a message only when the call asks for the next one. One read from the network can bring sixteen small messages,
 * which become sixteen megabytes.
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
