import { StructSchema, TypeSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import {
  GetAgentRequestSchema,
  HeartbeatRequestSchema,
  ListAgentsRequestSchema,
  UpdateAgentStatusRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { MAX_VIOLATIONS } from "../../src/domain/validation.ts";
import { compileJsonCheck, type JsonCheck } from "../../src/rpc/json/check.ts";

function violations(check: JsonCheck, json: unknown): string[] {
  try {
    check(json);
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    expect(error.reason).toBe("INVALID_FIELD");
    return error.violations.map(({ field }) => field);
  }
}

describe("the check of JSON", () => {
  test("accepts both names of a field, and treats null as unset", () => {
    const check = compileJsonCheck(ListAgentsRequestSchema);
    expect(
      violations(check, { filter: { agent_ids: ["a"], userIds: [1, "2"], statuses: null }, pageSize: null }),
    ).toEqual([]);
    expect(violations(check, { filter: null, page_size: 3, pageToken: "é" })).toEqual([]);
  });

  test("names fields by their proto name, and unknown fields as the request spells them", () => {
    const check = compileJsonCheck(HeartbeatRequestSchema);
    const beats = [{}, { agentId: 1 }, { exhaustion: { retryAfter: 1, because: 2 } }, null, "a"];
    expect(violations(check, { sequence: -1, beats, clawIdentifier: [], __proto__x: 1 })).toEqual([
      "sequence",
      "beats[1].agent_id",
      "beats[2].exhaustion.retry_after",
      "beats[2].exhaustion.because",
      "beats[3]",
      "beats[4]",
      "claw_identifier",
      "__proto__x",
    ]);
    expect(violations(check, JSON.parse('{"__proto__":{"beats":[]},"constructor":1}'))).toEqual([
      "__proto__",
      "constructor",
    ]);
  });

  test("leaves integers in enum fields to the check of all messages", () => {
    const check = compileJsonCheck(UpdateAgentStatusRequestSchema);
    expect(violations(check, { status: 99, exhaustion: { reason: -1 } })).toEqual([]);
    expect(violations(check, { status: 1.5, exhaustion: { reason: 2 ** 31 } })).toEqual([
      "status",
      "exhaustion.reason",
    ]);
    expect(violations(check, { status: "1", exhaustion: { reason: {} } })).toEqual(["status", "exhaustion.reason"]);
  });

  test("requires one member of a oneof", () => {
    const check = compileJsonCheck(GetAgentRequestSchema);
    expect(violations(check, { agentId: "a", userId: "1" })).toEqual(["key"]);
    expect(violations(check, { agentId: "a", userId: null })).toEqual([]);
  });

  test("accepts maps, lists of messages, and well-known types", () => {
    expect(violations(compileJsonCheck(ErrorInfoSchema), { metadata: { a: "b", c: 1 } })).toEqual(['metadata["c"]']);
    expect(violations(compileJsonCheck(ErrorInfoSchema), { metadata: [] })).toEqual(["metadata"]);
    expect(violations(compileJsonCheck(TypeSchema), { fields: [{ number: "x", packed: 1 }] })).toEqual([
      "fields[0].number",
      "fields[0].packed",
    ]);
    expect(violations(compileJsonCheck(StructSchema), { anything: [1] })).toEqual([]);
  });

  test("names a bounded number of violations", () => {
    const statuses = Array.from({ length: 1_000 }, () => "idle");
    expect(violations(compileJsonCheck(ListAgentsRequestSchema), { filter: { statuses } })).toHaveLength(
      MAX_VIOLATIONS,
    );
  });
});
