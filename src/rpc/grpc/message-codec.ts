import { fromBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { MessageCodec } from "@harborforge/connect-grpc-js";
import { encoded } from "../codec/encoded.ts";
import { readFast } from "../codec/fast-path.ts";
import { fromLibrary } from "../errors/error-table.ts";
import { hasTooManyValues, tooManyValues } from "../validation/value-limit.ts";

/** The codec of the gRPC listener: protobuf-es behind the limit of values, and the generated fast path. */
export const messageCodec: MessageCodec = {
  decode: (schema, bytes) => {
    if (hasTooManyValues(schema, bytes)) throw tooManyValues();
    const fast = readFast(schema, bytes);
    if (fast !== undefined) return fast;
    try {
      return fromBinary(schema, bytes);
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw fromLibrary(Code.Internal, `parse binary: ${why}`);
    }
  },
  encode: encoded,
};
