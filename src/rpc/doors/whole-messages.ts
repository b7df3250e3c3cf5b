import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import type { DescMessage } from "@bufbuild/protobuf";
import { hasTooManyValues, tooManyValues } from "../value-limit.ts";
import { MAX_MESSAGE_BYTES } from "./limits.ts";

const HEAD_BYTES = 5;

/**
 * The bytes of a request in binary, a whole message at a time, each looked at before Connect reads it. What is too large,
 * or breaks off, passes as it came, for Connect to refuse.
 *
 * `compressed`: whether a body without envelopes is; an envelope says so itself.
 *
 * @throws ConnectError, from `next()`, for a message with too many values
 */
export async function* wholeMessages(
  pieces: AsyncIterable<Uint8Array>,
  desc: DescMessage,
  { enveloped, compressed }: { readonly enveloped: boolean; readonly compressed: boolean },
): AsyncGenerator<Uint8Array> {
  const most = MAX_MESSAGE_BYTES + HEAD_BYTES;
  let held: Uint8Array[] = [];
  let length = 0;
  let wanted = enveloped ? HEAD_BYTES : most + 1;
  for await (const piece of pieces) {
    held.push(piece);
    length += piece.length;
    if (length < wanted) continue;
    let bytes = joined(held);
    wanted = most + 1;
    while (enveloped && bytes.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
      wanted = end;
      if (end > most || bytes.length < end) break;
      if (await isTooMuch(desc, bytes.subarray(HEAD_BYTES, end), bytes[0] === 1)) throw tooManyValues();
      yield bytes.subarray(0, end);
      bytes = bytes.subarray(end);
      wanted = HEAD_BYTES;
    }
    held = [bytes];
    length = bytes.length;
    if (wanted > most) {
      yield bytes;
      yield* pieces;
      return;
    }
  }
  if (length === 0) return;
  const rest = joined(held);
  if (!enveloped && (await isTooMuch(desc, rest, compressed))) throw tooManyValues();
  yield rest;
}

const decompress = promisify(gunzip);

async function isTooMuch(desc: DescMessage, bytes: Uint8Array, compressed: boolean): Promise<boolean> {
  if (!compressed) return hasTooManyValues(desc, bytes);
  try {
    return hasTooManyValues(desc, await decompress(bytes, { maxOutputLength: MAX_MESSAGE_BYTES }));
  } catch {
    // Damaged, or too large when decompressed: Connect finds that, too, and says so.
    return false;
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const [first] = pieces;
  return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces);
}
