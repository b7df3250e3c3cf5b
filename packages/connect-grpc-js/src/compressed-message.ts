import type { ServerInterceptingCallInterface } from "@grpc/grpc-js";

const HEAD_BYTES = 5;
/** The flag of a compressed message. */
const COMPRESSED = 1;

/**
 * Sends a message that is compressed already. grpc-js sends all messages as uncompressed ones, so its framing is replaced for this
 * one. The call's headers have to name the compression.
 *
 * @throws Error if `call` does not come from grpc-js itself, or this version of grpc-js frames messages elsewhere
 */
export function sendCompressed(
  call: ServerInterceptingCallInterface,
  compressed: Uint8Array,
  callback: () => void,
): void {
  if (typeof Reflect.get(call, "serializeMessage") !== "function") {
    throw new Error("The bridge cannot compress: this version of @grpc/grpc-js frames messages elsewhere.");
  }
  Reflect.set(call, "serializeMessage", () => framed(compressed));
  try {
    call.sendMessage(compressed, callback);
  } finally {
    Reflect.deleteProperty(call, "serializeMessage");
  }
}

function framed(compressed: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEAD_BYTES + compressed.length);
  frame[0] = COMPRESSED;
  frame.writeUInt32BE(compressed.length, 1);
  frame.set(compressed, HEAD_BYTES);
  return frame;
}
