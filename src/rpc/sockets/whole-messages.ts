import type { DescMessage } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import { fromLibrary } from "../errors/error-table.ts";
import { hasTooManyValues, tooManyValues } from "../validation/value-limit.ts";
import type { Encoding } from "./inflate.ts";
import type { MessageInput } from "./message-queue.ts";

const HEAD_BYTES = 5;
/** The lowest bit of an envelope's flags. */
export const COMPRESSED = 1;

/** The first byte of JSON, where the flags of an envelope belong. */
const BRACE = 0x7b;

export const PLAIN_JSON_REMEDY =
  "each of its messages needs the five bytes of an envelope before it: use a client such as buf curl, or the content type " +
  "application/connect+json with envelopes";

export interface MessageFormat {
  /** The type of binary messages; undefined for JSON, whose values the JSON reader counts. */
  readonly desc: DescMessage | undefined;
  /** Whether the body consists of framed messages; otherwise it is one message. */
  readonly enveloped: boolean;
  /** The compression of a body without envelopes, or of the messages whose envelope has the flag. */
  readonly encoding: Encoding | undefined;
}

/**
 * The bytes of a request, one complete message at a time: decompressed by `input`, and checked before Connect decodes them. A
 * message that is too large, incomplete, or compressed without a declared compression passes through: Connect rejects it.
 *
 * @throws ConnectError, from `next()`, for a message with too many values, and the errors of `input`
 */
export async function* wholeMessages(
  pieces: AsyncIterable<Uint8Array>,
  input: MessageInput,
  { desc, enveloped, encoding }: MessageFormat,
): AsyncGenerator<Uint8Array> {
  const read = async (message: Uint8Array, compressed: boolean): Promise<Uint8Array> => {
    const bytes = await input.read(message, compressed ? encoding : undefined);
    if (desc !== undefined && hasTooManyValues(desc, bytes)) throw tooManyValues();
    return bytes;
  };
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
    if (enveloped && bytes[0] === BRACE) throw plainJson();
    while (enveloped && bytes.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
      wanted = end;
      if (end > most || bytes.length < end) break;
      const [flags = 0] = bytes;
      const compressed = (flags & COMPRESSED) !== 0;
      const message = await read(bytes.subarray(HEAD_BYTES, end), compressed);
      if (compressed && encoding !== undefined) yield* envelope(message, flags & ~COMPRESSED);
      else yield bytes.subarray(0, end);
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
  if (enveloped && rest[0] === BRACE) throw plainJson();
  yield enveloped ? rest : await read(rest, true);
}

function plainJson(): ConnectError {
  return fromLibrary(Code.InvalidArgument, `the body is plain JSON: ${PLAIN_JSON_REMEDY}`);
}

/** In two pieces: one would need a copy of the message. */
function* envelope(message: Uint8Array, flags: number): Generator<Uint8Array> {
  const head = Buffer.alloc(HEAD_BYTES);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  yield head;
  yield message;
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const [first] = pieces;
  return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces);
}
