import { fromBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { beatsOf, furtherBeatsOf, readSequence, withSequence } from "../../bench/load/beat-messages.ts";
import { Latency } from "../../bench/load/latency.ts";
import { framed, unframer } from "../../bench/load/wire.ts";
import { HeartbeatRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";

describe("messages of the load generator", () => {
  it.each([1, 127, 128, 300, 1_000_000])("equal those of the contract with the sequence %i", (sequence) => {
    const first = withSequence(sequence, beatsOf(["a", "b"], "claw", "instance"));
    const decoded = fromBinary(HeartbeatRequestSchema, first);
    expect(decoded).toMatchObject({
      sequence: BigInt(sequence),
      clawIdentifier: "claw",
      instanceId: "instance",
      generation: 1n,
    });
    expect(decoded.beats.map(({ agentId }) => agentId)).toEqual(["a", "b"]);
    const further = fromBinary(HeartbeatRequestSchema, withSequence(sequence, furtherBeatsOf(["a"])));
    expect(further).toMatchObject({ sequence: BigInt(sequence), clawIdentifier: "", instanceId: "" });
    expect(readSequence(first)).toBe(sequence);
  });

  it("are found in chunks that are split anywhere", () => {
    const messages = ["", "a", "bc".repeat(300)].map((text) => Buffer.from(text));
    const bytes = Buffer.concat(messages.map(framed));
    for (const size of [1, 2, 7, 300, bytes.length]) {
      const found: string[] = [];
      const push = unframer((message) => found.push(message.toString()));
      for (let at = 0; at < bytes.length; at += size) push(bytes.subarray(at, at + size));
      expect(found).toEqual(messages.map(String));
    }
  });
});

it("the bench keeps latencies to three digits", () => {
  const latency = new Latency();
  for (let ms = 1; ms <= 1_000; ms += 1) latency.record(ms);
  const { count, p50Ms, p99Ms, mostMs } = latency.figures;
  expect(count).toBe(1_000);
  expect(p50Ms).toBeCloseTo(500, -1);
  expect(p99Ms).toBeCloseTo(990, -1);
  expect(mostMs).toBeCloseTo(1_000, -1);
});
