import { fromBinary, isMessage } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { MessageCodec } from "@harborforge/connect-grpc-js";
import { HeartbeatRequestSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { encoded } from "../codec/encoded.ts";
import { readUsualHeartbeat } from "../codec/heartbeat-request.ts";
import { fromLibrary } from "../errors/errors.ts";
import { hasTooManyValues, tooManyValues } from "../validation/value-limit.ts";

/** The codec of the gRPC listener: protobuf-es behind the limit of values, with a faster way for heartbeats and agents. */
export const messageCodec: MessageCodec = {
  decode: (schema, bytes) => {
    if (hasTooManyValues(schema, bytes)) throw tooManyValues();
    if (schema.typeName === HeartbeatRequestSchema.typeName) {
      const usual = readUsualHeartbeat(bytes);
      if (isMessage(usual, schema)) return usual;
    }
    try {
      return fromBinary(schema, bytes);
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw fromLibrary(Code.Internal, `parse binary: ${why}`);
    }
  },
  encode: encoded,
};
