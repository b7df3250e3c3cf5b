import { create, toBinary } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  BatchGetAgentsRequestSchema,
  ListAgentsRequestSchema,
  SendHeartbeatRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { hasTooManyJsonValues, hasTooManyValues, MAX_VALUES } from "../../src/rpc/validation/value-limit.ts";

const beats = (count: number, agentId: string) =>
  toBinary(
    SendHeartbeatRequestSchema,
    create(SendHeartbeatRequestSchema, { beats: Array.from({ length: count }, () => ({ agentId })) }),
  );

describe("the values of a message", () => {
  test("are counted without reading it, in lists and in their items", () => {
    expect(hasTooManyValues(SendHeartbeatRequestSchema, beats(1_000, "x".repeat(900)))).toBe(false);
    expect(hasTooManyValues(SendHeartbeatRequestSchema, beats(MAX_VALUES + 1, ""))).toBe(true);
    expect(hasTooManyValues(SendHeartbeatRequestSchema, beats(MAX_VALUES - 1, ""))).toBe(false);
    expect(hasTooManyValues(SendHeartbeatRequestSchema, beats(MAX_VALUES / 2 + 1, "a"))).toBe(true);
    const agentIds = Array.from({ length: MAX_VALUES + 1 }, () => "");
    expect(
      hasTooManyValues(
        BatchGetAgentsRequestSchema,
        toBinary(BatchGetAgentsRequestSchema, create(BatchGetAgentsRequestSchema, { agentIds })),
      ),
    ).toBe(true);
    const filter = { agentIds, statuses: [] };
    expect(
      hasTooManyValues(
        ListAgentsRequestSchema,
        toBinary(ListAgentsRequestSchema, create(ListAgentsRequestSchema, { filter })),
      ),
    ).toBe(true);
  });

  test("are counted in packed numbers, and in unknown fields", () => {
    const statuses = Array.from({ length: 100_000 }, () => AgentStatus.IDLE);
    const packed = toBinary(ListAgentsRequestSchema, create(ListAgentsRequestSchema, { filter: { statuses } }));
    expect(hasTooManyValues(ListAgentsRequestSchema, packed)).toBe(true);
    expect(hasTooManyValues(ListAgentsRequestSchema, Buffer.alloc(100_000, Buffer.from([0xf8, 0x01, 0x00])))).toBe(
      true,
    );
  });

  test("are counted in the values of maps", () => {
    const listValue = { values: Array.from({ length: MAX_VALUES }, () => ({})) };
    const struct = create(StructSchema, { fields: { list: { kind: { case: "listValue", value: listValue } } } });
    expect(hasTooManyValues(StructSchema, toBinary(StructSchema, struct))).toBe(true);
  });

  test("do not include the bytes of long text in lists", () => {
    const agentIds = ["x".repeat(4 * MAX_VALUES)];
    const request = create(BatchGetAgentsRequestSchema, { agentIds });
    expect(hasTooManyValues(BatchGetAgentsRequestSchema, toBinary(BatchGetAgentsRequestSchema, request))).toBe(false);
  });

  test("are counted in JSON outside of strings", () => {
    const texts = JSON.stringify({ agentIds: Array.from({ length: 1_000 }, () => ',{[\\",'.repeat(20)) });
    expect(hasTooManyJsonValues(Buffer.from(texts))).toBe(false);
    expect(hasTooManyJsonValues(Buffer.from(`{"beats":[${"{},".repeat(MAX_VALUES)}{}]}`))).toBe(true);
    expect(hasTooManyJsonValues(Buffer.from(`${"[".repeat(100_000)}`))).toBe(true);
  });

  test("of any bytes are counted to their end", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), (pattern) => {
        const bytes = Buffer.alloc(70_000, Buffer.from(pattern));
        expect(typeof hasTooManyValues(SendHeartbeatRequestSchema, bytes)).toBe("boolean");
        expect(typeof hasTooManyJsonValues(bytes)).toBe("boolean");
      }),
      { numRuns: 300 },
    );
  });
});
