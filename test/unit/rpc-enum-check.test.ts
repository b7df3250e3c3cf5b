import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, StructSchema, type Syntax, TypeSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  GetAgentRequestSchema,
  HeartbeatRequestSchema,
  SendHeartbeatRequestSchema,
  UpdateAgentStatusRequestSchema,
  WatchAgentsRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { compileEnumCheck } from "../../src/rpc/json/enum-check.ts";

const UNKNOWN = 99;

function violations(run: () => void): string[] {
  try {
    run();
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    expect(error.reason).toBe("INVALID_FIELD");
    return error.violations.map(({ field }) => field);
  }
}

describe("the check of enum numbers", () => {
  test("costs nothing where no enum can occur, and leaves beats to their handler", () => {
    expect(compileEnumCheck(GetAgentRequestSchema)).toBeUndefined();
    expect(compileEnumCheck(HeartbeatRequestSchema)).toBeUndefined();
    expect(compileEnumCheck(SendHeartbeatRequestSchema)).toBeUndefined();
  });

  test("names every unknown number by its path", () => {
    const check = compileEnumCheck(UpdateAgentStatusRequestSchema);
    const init: MessageInitShape<typeof UpdateAgentStatusRequestSchema> = {
      status: UNKNOWN as AgentStatus,
      exhaustion: { reason: UNKNOWN as ExhaustReason },
    };
    expect(violations(() => check?.(create(UpdateAgentStatusRequestSchema, init)))).toEqual([
      "status",
      "exhaustion.reason",
    ]);
  });

  test("looks into lists", () => {
    const check = compileEnumCheck(WatchAgentsRequestSchema);
    const statuses = [AgentStatus.IDLE, UNKNOWN as AgentStatus, AgentStatus.BUSY, -1 as AgentStatus];
    expect(violations(() => check?.(create(WatchAgentsRequestSchema, { filter: { statuses } })))).toEqual([
      "filter.statuses[1]",
      "filter.statuses[3]",
    ]);
  });

  test("passes known numbers and what is unset", () => {
    const check = compileEnumCheck(UpdateAgentStatusRequestSchema);
    for (const init of [{}, { status: AgentStatus.OFFLINE }, { exhaustion: { reason: ExhaustReason.BILLING } }]) {
      expect(violations(() => check?.(create(UpdateAgentStatusRequestSchema, init)))).toEqual([]);
    }
  });

  test("bears types that contain themselves, maps and oneofs", () => {
    const struct = create(StructSchema, { fields: { a: { kind: { case: "nullValue", value: 0 } } } });
    expect(violations(() => compileEnumCheck(StructSchema)?.(struct))).toEqual([]);
    for (const { kind } of Object.values(struct.fields)) Object.assign(kind, { value: UNKNOWN });
    expect(violations(() => compileEnumCheck(StructSchema)?.(struct))).toEqual(['fields["a"].null_value']);
    expect(compileEnumCheck(FileDescriptorProtoSchema)).toBeDefined();
    expect(violations(() => compileEnumCheck(TypeSchema)?.(create(TypeSchema, { syntax: UNKNOWN as Syntax })))).toEqual(
      ["syntax"],
    );
  });

  test("names a bounded number of violations", () => {
    const check = compileEnumCheck(WatchAgentsRequestSchema);
    const statuses = Array.from({ length: 1_000 }, () => UNKNOWN as AgentStatus);
    expect(violations(() => check?.(create(WatchAgentsRequestSchema, { filter: { statuses } }))).length).toBeLessThan(
      50,
    );
  });
});
