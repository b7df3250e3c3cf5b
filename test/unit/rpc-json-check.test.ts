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
import { refusedBeat } from "../../src/rpc/json/refused-beats.ts";

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

  test("names fields as the request spells them", () => {
    const check = compileJsonCheck(HeartbeatRequestSchema);
    expect(violations(check, { sequence: -1, beats: {}, claw_identifier: [], instanceId: 1, __proto__x: 1 })).toEqual([
      "sequence",
      "beats",
      "claw_identifier",
      "instanceId",
      "__proto__x",
    ]);
    const update = compileJsonCheck(UpdateAgentStatusRequestSchema);
    expect(violations(update, { exhaustion: { retryAfter: 1, because: 2 }, expected_revision: "x" })).toEqual([
      "exhaustion.retryAfter",
      "exhaustion.because",
      "expected_revision",
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

  test("replaces a beat with faults by a stand-in that carries them, and leaves the others", () => {
    const check = compileJsonCheck(HeartbeatRequestSchema);
    const beats: unknown[] = [{}, { agentId: "b", exhaustion: { retryAfter: 1, because: 2 } }, null, { agent_id: 3 }];
    expect(violations(check, { sequence: 1, beats })).toEqual([]);
    const refused = beats.map((beat) => refusedBeat(String(Reflect.get(Object(beat), "agentId"))));
    expect(refused.map((beat) => beat?.agentId)).toEqual([undefined, "b", "", ""]);
    expect(refused.map((beat) => beat?.refusal.violations.map(({ field }) => field))).toEqual([
      undefined,
      ["beats[1].exhaustion.retryAfter", "beats[1].exhaustion.because"],
      ["beats[2]"],
      ["beats[3].agent_id"],
    ]);
    expect(violations(check, { beats: Array.from({ length: 1_001 }, () => null) })).toEqual(["beats"]);
  });

  test("requires one member of a oneof", () => {
    const check = compileJsonCheck(GetAgentRequestSchema);
    expect(violations(check, { agentId: "a", userId: "1" })).toEqual(["userId"]);
    expect(violations(check, { agentId: null, user_id: "1" })).toEqual([]);
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
