import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Agent, AgentSchema, AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  BatchGetAgentsResponseSchema,
  GetAgentResponseSchema,
  HeartbeatRequestSchema,
  HeartbeatResponseSchema,
  ListAgentsResponseSchema,
  SessionStart,
  WatchAgentsResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { writeUsualAgents } from "../../src/rpc/codec/agent-encoder.ts";
import { encoded } from "../../src/rpc/codec/encoded.ts";
import { readUsualHeartbeat } from "../../src/rpc/codec/heartbeat-request.ts";
import { writeUsualAcknowledgement } from "../../src/rpc/codec/heartbeat-response.ts";

type Request = MessageInitShape<typeof HeartbeatRequestSchema>;

function written(request: Request): Buffer {
  return Buffer.from(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, request)));
}

/** The fields that handlers read: the prototype and unknown fields of a message belong to the library. */
function seen(bytes: Buffer) {
  const { sequence, beats, clawIdentifier, instanceId, generation } = fromBinary(HeartbeatRequestSchema, bytes);
  return {
    sequence,
    clawIdentifier,
    instanceId,
    generation,
    beats: beats.map(({ agentId, status, exhaustion, leaving, knownRevision, sessionStart }) => ({
      agentId,
      status,
      exhaustion,
      leaving,
      knownRevision,
      sessionStart,
    })),
  };
}

/** Reads on the fast path, and compares the result, if there is one, with the library. */
function read(bytes: Buffer) {
  const message = readUsualHeartbeat(bytes);
  if (message === undefined) return undefined;
  const { $typeName, beats, ...rest } = message;
  const own = { ...rest, beats: beats.map(({ $typeName: _, ...beat }) => beat) };
  expect(own).toEqual(seen(bytes));
  return own;
}

const USUAL: readonly Request[] = [
  {},
  { sequence: 1n },
  { sequence: 2n ** 49n - 1n, beats: [{}] },
  { sequence: 300n, beats: [{ agentId: "a-1" }], clawIdentifier: "claw-1", instanceId: "i", generation: 7n },
  { sequence: 3n, beats: [{ agentId: "a", status: AgentStatus.BUSY, knownRevision: 0n }, { agentId: "b" }] },
  { sequence: 4n, beats: [{ agentId: "a", leaving: true, knownRevision: 1_234_567_890_123n }] },
  {
    sequence: 5n,
    beats: Array.from({ length: 1_000 }, (_, n) => ({
      agentId: `agent-${n}`,
      status: AgentStatus.ON_CALL,
      knownRevision: BigInt(n),
    })),
  },
  { sequence: 6n, beats: [{ agentId: "x".repeat(300) }] },
  {
    sequence: 7n,
    beats: [
      { agentId: "a", sessionStart: SessionStart.FIRST },
      { agentId: "b", knownRevision: 3n, sessionStart: SessionStart.ANEW },
      { agentId: "c", leaving: true, sessionStart: SessionStart.RESUME },
    ],
  },
];

const UNUSUAL: readonly { readonly what: string; readonly bytes: Buffer }[] = [
  { what: "a name beyond ASCII", bytes: written({ sequence: 1n, beats: [{ agentId: "müller" }] }) },
  { what: "an exhaustion", bytes: written({ beats: [{ agentId: "a", status: 4, exhaustion: { reason: 1 } }] }) },
  { what: "a negative revision", bytes: written({ beats: [{ agentId: "a", knownRevision: -1n }] }) },
  { what: "a great sequence", bytes: written({ sequence: 2n ** 63n }) },
  { what: "a status of later", bytes: Buffer.from([0x12, 2, 0x10, 99]) },
  { what: "a session start of later", bytes: Buffer.from([0x12, 2, 0x40, 99]) },
  { what: "a field of later", bytes: Buffer.from([0x08, 1, 0x78, 1]) },
  { what: "a field of later in a beat", bytes: Buffer.from([0x12, 2, 0x78, 1]) },
  { what: "another wire type", bytes: Buffer.from([0x0a, 1, 1]) },
  { what: "a varint that does not end", bytes: Buffer.from([0x08, 0x80]) },
  { what: "a tag that is longer than a tag may be", bytes: Buffer.from([0x88, 0x80, 0x80, 0x80, 0x80, 0, 1]) },
  { what: "such a tag in a beat", bytes: Buffer.from([0x12, 7, 0x90, 0x80, 0x80, 0x80, 0x80, 0, 1]) },
  { what: "a length beyond the end", bytes: Buffer.from([0x12, 9, 0x0a]) },
  { what: "a name that is longer than its beat", bytes: Buffer.from([0x12, 3, 0x0a, 5, 97, 0x08, 1, 0x08, 1]) },
  { what: "a name that is no UTF-8", bytes: Buffer.from([0x12, 3, 0x0a, 1, 0xff]) },
];

describe("a heartbeat that the fast path reads", () => {
  test.each(USUAL.map((request) => ({ request })))("equals the library's message: $request", ({ request }) => {
    expect(read(written(request))).toBeDefined();
  });

  test.each(UNUSUAL)("leaves $what to the library", ({ bytes }) => {
    expect(readUsualHeartbeat(bytes)).toBeUndefined();
  });

  test("equals the library's message for any bytes, or is left to it", () => {
    const some = USUAL.filter(({ beats = [] }) => beats.length < 100).map(written);
    const change = fc.record({ place: fc.nat(400), byte: fc.nat(255) });
    let usual = 0;
    fc.assert(
      fc.property(fc.constantFrom(...some), fc.array(change, { maxLength: 3 }), fc.nat(400), (bytes, changes, cut) => {
        const changed = Buffer.from(bytes);
        for (const { place, byte } of changes) if (place < changed.length) changed[place] = byte;
        if (read(changed.subarray(0, Math.max(20, cut))) !== undefined) usual += 1;
      }),
      { numRuns: 10_000 },
    );
    expect(usual).toBeGreaterThan(100);
  });
});

/** A varint with so many more bytes than needed. */
function varint(value: number, longer: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) + 0x80);
  if (longer === 0) return [...bytes, rest];
  return [...bytes, rest + 0x80, ...Array.from({ length: longer - 1 }, () => 0x80), 0];
}

describe("a heartbeat that no library would write", () => {
  const value = fc.constantFrom(0, 1, 5, 6, 127, 128, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 48, 2 ** 49 - 1, 2 ** 49);
  const longer = fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(7) });
  const text = fc.oneof(fc.constantFrom<number[][]>([], [97], [97, 98]), fc.array(fc.nat(255), { maxLength: 3 }));
  const number = (...fields: number[]) =>
    fc
      .tuple(fc.constantFrom(...fields), longer, value, longer)
      .map(([field, tagLonger, of, ofLonger]) => [...varint(field * 8, tagLonger), ...varint(of, ofLonger)]);
  const bytes = (content: fc.Arbitrary<number[]>, ...fields: number[]) =>
    fc
      .tuple(fc.constantFrom(...fields), longer, content, longer)
      .map(([field, tagLonger, of, ofLonger]) => [
        ...varint(field * 8 + 2, tagLonger),
        ...varint(of.length, ofLonger),
        ...of,
      ]);
  const beat = fc.array(fc.oneof(number(2, 4, 5), bytes(text, 1)), { maxLength: 5 }).map((fields) => fields.flat());
  const request = fc
    .array(fc.oneof(number(1, 5), bytes(text, 3, 4), bytes(beat, 2)), { maxLength: 6 })
    .map((fields) => Buffer.from(fields.flat()));

  test("equals the library's message in any order, repeated, and overlong, or is left to it", () => {
    let usual = 0;
    fc.assert(
      fc.property(request, (some) => {
        if (read(some) !== undefined) usual += 1;
      }),
      { numRuns: 10_000 },
    );
    expect(usual).toBeGreaterThan(100);
  });
});

describe("an acknowledgement that the fast path writes", () => {
  const pace = { nextHeartbeatIn: { seconds: 9n, nanos: 500_000_000 }, leaseTtl: { seconds: 30n, nanos: 0 } };

  test.each([
    0n,
    1n,
    127n,
    128n,
    300n,
    2n ** 32n,
    2n ** 53n - 1n,
  ])("equals the library's bytes, up to sequence %s", (acknowledgedSequence) => {
    for (const nextHeartbeatIn of [
      { seconds: 0n, nanos: 0 },
      { seconds: 0n, nanos: 1 },
      { seconds: 3_600n, nanos: 999_999_999 },
    ]) {
      const message = create(HeartbeatResponseSchema, { ...pace, nextHeartbeatIn, acknowledgedSequence });
      const bytes = writeUsualAcknowledgement(message);
      expect(bytes?.toString("hex")).toBe(Buffer.from(toBinary(HeartbeatResponseSchema, message)).toString("hex"));
    }
  });

  test("leaves all other responses to the library", () => {
    const usual = create(HeartbeatResponseSchema, pace);
    for (const other of [
      create(HeartbeatResponseSchema),
      { ...usual, acknowledgedSequence: 2n ** 63n },
      { ...usual, leaseTtl: undefined },
      create(HeartbeatResponseSchema, { ...pace, results: [{ agentId: "a" }] }),
      create(HeartbeatResponseSchema, { ...pace, draining: {} }),
      create(HeartbeatResponseSchema, { ...pace, limits: {} }),
      create(HeartbeatResponseSchema, { ...pace, leaseTtl: { seconds: -1n } }),
      create(HeartbeatResponseSchema, { ...pace, leaseTtl: { seconds: 2n ** 40n } }),
    ]) {
      expect(writeUsualAcknowledgement(other)).toBeUndefined();
    }
  });
});

/** As an init, which handlers return, and as a message. */
function expectReadAlike<Desc extends DescMessage>(desc: Desc, init: MessageInitShape<Desc>): void {
  const message = create(desc, init);
  const wanted = fromBinary(desc, toBinary(desc, message));
  expect(fromBinary(desc, encoded(desc, init))).toEqual(wanted);
  expect(fromBinary(desc, encoded(desc, message))).toEqual(wanted);
}

describe("agents that the fast path writes", () => {
  const whole = fc.bigInt({ min: 0n, max: BigInt(Number.MAX_SAFE_INTEGER) });
  const time = fc.option(
    fc.record({ seconds: fc.bigInt({ min: 0n, max: 253_402_300_799n }), nanos: fc.nat(999_999_999) }),
    { nil: undefined },
  );
  const name = fc.string({ unit: "binary-ascii", maxLength: 128 });
  const usual = fc
    .record({
      id: whole,
      userId: whole,
      agentId: name,
      clawIdentifier: name,
      status: fc.constantFrom(AgentStatus.UNSPECIFIED, AgentStatus.IDLE, AgentStatus.EXHAUSTED, AgentStatus.OFFLINE),
      exhaustReason: fc.constantFrom(ExhaustReason.UNSPECIFIED, ExhaustReason.BILLING),
      revision: whole,
      lastHeartbeat: time,
      exhaustedAt: time,
      recoveryAt: time,
      createdAt: time,
      leaseExpiresAt: time,
      statusChangedAt: time,
      suspectSince: time,
    })
    .map((init): Agent => create(AgentSchema, init));

  test("equal the library's bytes", () => {
    fc.assert(
      fc.property(usual, (agent) => {
        const bytes = Buffer.from(toBinary(GetAgentResponseSchema, create(GetAgentResponseSchema, { agent })));
        expect(writeUsualAgents(1, [agent])?.toString("hex")).toBe(bytes.toString("hex"));
      }),
      { numRuns: 2_000 },
    );
    // Otherwise the fast path would omit a new field of the contract.
    expect(AgentSchema.fields.map(({ number }) => number)).toEqual(Array.from({ length: 14 }, (_, index) => index + 1));
  });

  test.each([
    { what: "a name beyond ASCII", init: { agentId: "müller" } },
    { what: "a long name beyond ASCII", init: { clawIdentifier: "🤖".repeat(128) } },
    { what: "a negative number", init: { id: -1n } },
    { what: "a great number", init: { revision: 2n ** 63n - 1n } },
    { what: "a time before 1970", init: { createdAt: { seconds: -1n } } },
    { what: "a negative status", init: { status: -1 as AgentStatus } },
  ])("leave $what to the library, with the whole message", ({ init }) => {
    const plain = create(AgentSchema, { agentId: "plain" });
    const agents = [plain, create(AgentSchema, init), plain];
    expect(writeUsualAgents(1, agents)).toBeUndefined();
    const message = create(ListAgentsResponseSchema, { agents, revision: 7n });
    expect(encoded(ListAgentsResponseSchema, message)).toEqual(
      Buffer.from(toBinary(ListAgentsResponseSchema, message)),
    );
  });

  test("make messages that decode as if the library had written them", () => {
    fc.assert(
      fc.property(fc.array(usual, { maxLength: 4 }), whole, (agents, revision) => {
        const [agent] = agents;
        const bookmark = { snapshotComplete: true };
        expectReadAlike(GetAgentResponseSchema, { agent });
        expectReadAlike(BatchGetAgentsResponseSchema, { agents });
        expectReadAlike(ListAgentsResponseSchema, { agents, nextPageToken: "next", revision });
        expectReadAlike(WatchAgentsResponseSchema, {
          snapshotAgents: agents,
          revision,
          bookmark,
          changes: [{ agent }],
        });
      }),
    );
  });
});
