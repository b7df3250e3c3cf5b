import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AgentSchema, AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  GetAgentResponseSchema,
  HeartbeatRequestSchema,
  HeartbeatResponseSchema,
  ListAgentsResponseSchema,
  SessionStart,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { FAST_PATH_FILE, FAST_PATH_MESSAGES, type FastPathMessages, fastPathSource } from "../../scripts/fast-path.ts";
import { root } from "../../scripts/run-tool.ts";
import { encoded } from "../../src/rpc/codec/encoded.ts";
import { readFast, writeFast } from "../../src/rpc/codec/fast-path.ts";
import { WireReader } from "../../src/rpc/codec/wire-reader.ts";
import { WireWriter } from "../../src/rpc/codec/wire-writer.ts";
import { ADDED_FIELDS, withAddedField } from "../support/added-fields.ts";
import { anyMessage } from "../support/any-message.ts";

type Request = MessageInitShape<typeof HeartbeatRequestSchema>;

function written(request: Request): Buffer {
  return Buffer.from(toBinary(HeartbeatRequestSchema, create(HeartbeatRequestSchema, request)));
}

/** Reads by the fast path. If it reads the bytes, the library has to read the same. */
function read(bytes: Buffer) {
  const message = readFast(HeartbeatRequestSchema, bytes);
  if (message !== undefined) expect(message).toEqual(fromBinary(HeartbeatRequestSchema, bytes));
  return message;
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
  { sequence: 8n, beats: [{ agentId: "a", status: 99 as AgentStatus, sessionStart: 99 as SessionStart }] },
  { beats: [{ agentId: "a", status: AgentStatus.EXHAUSTED, exhaustion: { reason: 1 } }] },
  { beats: [{ exhaustion: { recovery: { case: "recoveryAt", value: { seconds: 1_700_000_000n, nanos: 5 } } } }] },
  { beats: [{ exhaustion: { reason: 2, recovery: { case: "retryAfter", value: { seconds: 60n } } } }] },
];

const UNUSUAL: readonly { readonly what: string; readonly bytes: Buffer }[] = [
  { what: "a name beyond ASCII", bytes: written({ sequence: 1n, beats: [{ agentId: "müller" }] }) },
  { what: "an exhaustion that comes twice", bytes: Buffer.from([0x12, 8, 0x1a, 2, 0x08, 1, 0x1a, 2, 0x08, 2]) },
  { what: "a negative revision", bytes: written({ beats: [{ agentId: "a", knownRevision: -1n }] }) },
  { what: "a large sequence", bytes: written({ sequence: 2n ** 63n }) },
  { what: "a status beyond 31 bits", bytes: Buffer.from([0x12, 6, 0x10, 0xff, 0xff, 0xff, 0xff, 0x0f]) },
  { what: "an unknown field", bytes: Buffer.from([0x08, 1, 0x78, 1]) },
  { what: "an unknown field of a beat", bytes: Buffer.from([0x12, 2, 0x78, 1]) },
  { what: "an unknown field with a tag of two bytes", bytes: Buffer.from([0x08, 1, 0x80, 1, 1]) },
  { what: "a tag of two bytes that fits one", bytes: Buffer.from([0x88, 0, 1]) },
  { what: "a tag that is cut off", bytes: Buffer.from([0x88]) },
  { what: "another wire type", bytes: Buffer.from([0x0a, 1, 1]) },
  { what: "a varint that does not end", bytes: Buffer.from([0x08, 0x80]) },
  { what: "a tag longer than five bytes", bytes: Buffer.from([0x88, 0x80, 0x80, 0x80, 0x80, 0, 1]) },
  { what: "a tag longer than five bytes in a beat", bytes: Buffer.from([0x12, 7, 0x90, 0x80, 0x80, 0x80, 0x80, 0, 1]) },
  { what: "a length beyond the end", bytes: Buffer.from([0x12, 9, 0x0a]) },
  { what: "a name that is longer than its beat", bytes: Buffer.from([0x12, 3, 0x0a, 5, 97, 0x08, 1, 0x08, 1]) },
  { what: "a name that is not UTF-8", bytes: Buffer.from([0x12, 3, 0x0a, 1, 0xff]) },
];

describe("the fast path reads a heartbeat", () => {
  test.each(USUAL.map((request) => ({ request })))("as the library does: $request", ({ request }) => {
    expect(read(written(request))).toBeDefined();
  });

  test.each(UNUSUAL)("or leaves it to the library: $what", ({ bytes }) => {
    expect(readFast(HeartbeatRequestSchema, bytes)).toBeUndefined();
  });

  test("as the library does, or leaves it to the library, when bytes are changed or cut off", () => {
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

/** A varint in so many bytes more than it takes. */
function varint(value: number, longer: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) + 0x80);
  if (longer === 0) return [...bytes, rest];
  return [...bytes, rest + 0x80, ...Array.from({ length: longer - 1 }, () => 0x80), 0];
}

describe("the fast path reads a heartbeat that no library writes", () => {
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

  test("as the library does: fields in any order, repeated, with longer varints than needed", () => {
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

/** A generated fast path. */
interface FastPath {
  readMessage(typeName: string, reader: WireReader): Message | undefined;
  writeMessage(writer: WireWriter, message: Message): boolean;
}

const committed: FastPath = await import("../../src/rpc/codec/generated/fast-path.ts");

async function generate(messages: FastPathMessages): Promise<FastPath> {
  const code = stripTypeScriptTypes(fastPathSource(messages));
  return await import(/* @vite-ignore */ `data:text/javascript,${encodeURIComponent(code)}`);
}

/** Compares a fast path with the library, by messages with any fields. @returns how many it did not leave to the library */
function compare(fastPath: FastPath, { read, written }: FastPathMessages, numRuns: number) {
  const writes = written.map((desc) => compareWrites(fastPath, desc, numRuns));
  const reads = read.map((desc) => {
    return compareReads(
      fastPath,
      anyMessage(desc).map((message) => toBinary(desc, message)),
      desc,
      numRuns,
    );
  });
  return { reads: Math.min(...reads), writes: Math.min(...writes) };
}

function compareWrites(fastPath: FastPath, desc: DescMessage, numRuns: number): number {
  let compared = 0;
  fc.assert(
    fc.property(anyMessage(desc), (message) => {
      const writer = new WireWriter();
      if (!fastPath.writeMessage(writer, message)) throw new Error(`${desc.typeName} is not on the fast path`);
      if (writer.unusual) return;
      compared += 1;
      expect(writer.written.toString("hex")).toBe(Buffer.from(toBinary(desc, message)).toString("hex"));
    }),
    { numRuns, examples: [[create(desc)]] },
  );
  return compared;
}

function compareReads(fastPath: FastPath, some: fc.Arbitrary<Uint8Array>, desc: DescMessage, numRuns: number): number {
  let compared = 0;
  fc.assert(
    fc.property(some, (bytes) => {
      const reader = new WireReader(Buffer.from(bytes));
      const own = fastPath.readMessage(desc.typeName, reader);
      if (own === undefined) throw new Error(`${desc.typeName} is not on the fast path`);
      if (reader.unusual) return;
      compared += 1;
      expect(own).toEqual(fromBinary(desc, bytes));
    }),
    { numRuns, examples: [[new Uint8Array(0)]] },
  );
  return compared;
}

describe("the fast path", () => {
  test("is generated from the descriptors in gen", async () => {
    expect(await readFile(join(root, FAST_PATH_FILE), "utf8")).toBe(fastPathSource(FAST_PATH_MESSAGES));
  });

  test("reads and writes every field of its messages as the library does", () => {
    const { reads, writes } = compare(committed, FAST_PATH_MESSAGES, 500);
    expect(reads).toBeGreaterThan(100);
    expect(writes).toBeGreaterThan(100);
  });

  test.each(ADDED_FIELDS)("does not lose an added field: $name", async (added) => {
    const changed = withAddedField(FAST_PATH_MESSAGES, added);
    // Generated anew, it handles the field or leaves the message to the library.
    const { reads, writes } = compare(await generate(changed), changed, 20);
    expect(reads).toBeGreaterThan(0);
    expect(writes).toBeGreaterThan(0);
    // Until it is generated anew, its reader leaves messages with the field to the library.
    for (const [index, desc] of changed.read.entries()) {
      const now = FAST_PATH_MESSAGES.read[index];
      if (now !== undefined)
        compareReads(
          committed,
          anyMessage(desc).map((message) => toBinary(desc, message)),
          now,
          60,
        );
    }
    expect(/if \(.*\badded\b.*\) writer\.unusual/i.test(fastPathSource(changed))).toBe(!added.isHandled);
  });

  test("rejects messages of other syntaxes than proto3, which have defaults and required fields", () => {
    expect(() => fastPathSource({ read: [FileDescriptorProtoSchema], written: [] })).toThrow("is not of syntax proto3");
  });
});

describe("the fast path writes", () => {
  const pace = { nextHeartbeatIn: { seconds: 9n, nanos: 500_000_000 }, leaseTtl: { seconds: 30n, nanos: 0 } };

  test.each([0n, 1n, 127n, 128n, 300n, 2n ** 32n, 2n ** 53n - 1n])("an acknowledgement of sequence %s", (sequence) => {
    for (const nextHeartbeatIn of [
      { seconds: 0n, nanos: 0 },
      { seconds: 0n, nanos: 1 },
      { seconds: 3_600n, nanos: 999_999_999 },
    ]) {
      const message = create(HeartbeatResponseSchema, { ...pace, nextHeartbeatIn, acknowledgedSequence: sequence });
      const bytes = Buffer.from(toBinary(HeartbeatResponseSchema, message));
      expect(writeFast(message)?.toString("hex")).toBe(bytes.toString("hex"));
    }
  });

  test.each([
    { length: 127 },
    { length: 128 },
    { length: 16_383 },
    { length: 16_384 },
    { length: 2_097_152 },
  ])("a message with $length bytes in it", ({ length }) => {
    const message = create(GetAgentResponseSchema, { agent: { agentId: "x".repeat(length) } });
    const bytes = Buffer.from(toBinary(GetAgentResponseSchema, message));
    expect(writeFast(message)?.equals(bytes)).toBe(true);
  });

  test.each([
    { what: "an unknown field", agent: { $unknown: [{ no: 15, wireType: 0, data: Buffer.from([1]) }] } },
    { what: "a name beyond ASCII", agent: { agentId: "müller" } },
    { what: "a long name beyond ASCII", agent: { clawIdentifier: "🤖".repeat(128) } },
    { what: "a negative number", agent: { id: -1n } },
    { what: "a large number", agent: { revision: 2n ** 63n - 1n } },
    { what: "a time before 1970", agent: { createdAt: create(TimestampSchema, { seconds: -1n }) } },
    { what: "a negative status", agent: { status: -1 as AgentStatus } },
  ])("no message with $what, which the library writes", ({ agent }) => {
    const plain = create(AgentSchema, { agentId: "plain" });
    const unusual = Object.assign(create(AgentSchema), agent);
    const message = create(ListAgentsResponseSchema, { agents: [plain, unusual, plain], revision: 7n });
    expect(writeFast(message)).toBeUndefined();
    const bytes = toBinary(ListAgentsResponseSchema, message);
    expect(encoded(ListAgentsResponseSchema, message)).toEqual(Buffer.from(bytes));
  });

  test.each([1.5, 2 ** 31, Number.NaN])("no number that the library rejects: %s", (status) => {
    const message = create(GetAgentResponseSchema, { agent: { status: status as AgentStatus } });
    expect(writeFast(message)).toBeUndefined();
    expect(() => encoded(GetAgentResponseSchema, message)).toThrow();
  });

  test("what handlers return, which need not be complete", () => {
    const init: MessageInitShape<typeof GetAgentResponseSchema> = { agent: { agentId: "a" } };
    const bytes = toBinary(GetAgentResponseSchema, create(GetAgentResponseSchema, init));
    expect(encoded(GetAgentResponseSchema, init)).toEqual(Buffer.from(bytes));
  });
});
