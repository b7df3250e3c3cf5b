import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentBeat,
  AgentBeatSchema,
  HeartbeatRequestSchema,
  SendHeartbeatRequestSchema,
  type SessionStart,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type WakeReply, WakeReplySchema } from "../../gen/harborforge/agents/v1/wake_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { isDuration, isTimestamp } from "../../src/domain/validation.ts";
import { beatOf } from "../../src/rpc/convert/request.ts";
import { checkEnvelope } from "../../src/rpc/handlers/heartbeat-envelope.ts";
import { compileRuleCheck } from "../../src/rpc/validation/request-check.ts";

// Rules that depend on the time must use the clock of the hand-written check, or a limit of 366 days is two
// limits.
const NOW_SECONDS = 1_790_000_000n;
const NOW_MICROS = Number(NOW_SECONDS) * 1_000_000;

beforeAll(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: Number(NOW_SECONDS) * 1_000 });
});
afterAll(() => {
  vi.useRealTimers();
});

const FURTHEST_SECONDS = 366n * 86_400n;

/** The paths of violations, in the order in which they are reported. */
function fieldsOf(check: () => void): string[] {
  try {
    check();
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    expect(error.reason).toBe("INVALID_FIELD");
    return error.violations.map(({ field }) => field);
  }
}

function checkOf(desc: Parameters<typeof compileRuleCheck>[0]) {
  const check = compileRuleCheck(desc);
  if (check === undefined) throw new Error(`${desc.typeName} has no rules`);
  return check;
}

/** Text at the limits of a valid name, in code points of every size, and with forbidden characters. */
const name = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom(
      "scribe-7",
      "é",
      "👩‍👩‍👧‍👦",
      " ",
      "__proto__",
      "\u00a0",
      "\u2028",
      "\ufeff",
      "\u{10ffff}",
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom("", "\u0000", "a\n", "\u007f", "\u0080", "\u009f", "a\u0085b") },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom("a", "é", "🤖"), fc.constantFrom(1, 64, 127, 128, 129, 256, 1_000))
      .map(([point, length]) => point.repeat(length)),
  },
  { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 140 }) },
);
/** Numbers of the contract and others: enums are open on the wire. */
const status = fc
  .oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 5 }) }, { weight: 1, arbitrary: int32() })
  .map((value) => value as AgentStatus);
const reason = fc
  .oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 2 }) }, { weight: 1, arbitrary: int32() })
  .map((value) => value as ExhaustReason);
const start = fc
  .oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 3 }) }, { weight: 1, arbitrary: int32() })
  .map((value) => value as SessionStart);
const revision = fc.option(fc.oneof(fc.constantFrom(-1n, 0n, 1n), int64()), { nil: undefined });
const nanos = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(0, 1, 999_999_999) },
  { weight: 1, arbitrary: fc.oneof(fc.constantFrom(-1, 1_000_000_000), int32()) },
);
const delay = fc.record({
  seconds: fc.oneof(
    fc.constantFrom(-1n, 0n, 30n, FURTHEST_SECONDS - 1n, FURTHEST_SECONDS, FURTHEST_SECONDS + 1n),
    int64(),
  ),
  nanos,
});
const deadline = fc.record({
  seconds: fc.oneof(
    fc
      .constantFrom(0n, -1n, 30n, FURTHEST_SECONDS - 1n, FURTHEST_SECONDS, FURTHEST_SECONDS + 1n)
      .map((ahead) => NOW_SECONDS + ahead),
    fc.constantFrom(-62_135_596_801n, -62_135_596_800n, 0n, 253_402_300_799n, 253_402_300_800n),
    int64(),
  ),
  nanos,
});
const recovery = fc.oneof(
  fc.constant({ case: undefined }),
  deadline.map((value) => ({ case: "recoveryAt" as const, value })),
  delay.map((value) => ({ case: "retryAfter" as const, value })),
);
const exhaustion = fc.record({ reason, recovery });
const wakeReply = fc
  .record({
    wakeId: name,
    offerRevision: fc.oneof(fc.constantFrom(-1n, 0n, 1n), int64()),
    type: enumOf(4),
    reason: enumOf(15),
    outcome: enumOf(3),
    note: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom("", "done", "two\nlines", "é".repeat(512), "x".repeat(1_024)) },
      { weight: 1, arbitrary: fc.constantFrom("\0", "a\0b", "é".repeat(513), "x".repeat(1_025), "🤖".repeat(257)) },
    ),
  })
  // Most replies are valid, or beats with several would never be.
  .map((init) => create(WakeReplySchema, init as MessageInitShape<typeof WakeReplySchema>));
const validReply = create(WakeReplySchema, { wakeId: "slot-1", offerRevision: 7n, type: 1 });
const wakeReplies = fc.oneof(
  { weight: 3, arbitrary: fc.constant<WakeReply[]>([]) },
  { weight: 2, arbitrary: fc.array(wakeReply, { maxLength: 2 }) },
  { weight: 1, arbitrary: fc.constantFrom(16, 17).map((length) => Array.from({ length }, () => validReply)) },
);
const beat = fc
  .record({
    agentId: name,
    status,
    exhaustion: fc.option(exhaustion, { nil: undefined }),
    leaving: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    knownRevision: revision,
    sessionStart: start,
    wakeReplies,
  })
  .map((init) => create(AgentBeatSchema, init));

function enumOf(largest: number) {
  return fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: largest }) }, { weight: 1, arbitrary: int32() });
}

function int32() {
  return fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
}

function int64() {
  return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
}

/**
 * Rules are skipped for an invalid time; the hand-written check continues and reports their violations, too.
 */
function hasOddTime({ exhaustion }: AgentBeat): boolean {
  const recovery = exhaustion?.recovery;
  switch (recovery?.case) {
    case "recoveryAt":
      return !isTimestamp(recovery.value);
    case "retryAfter":
      return !isDuration(recovery.value);
    default:
      return false;
  }
}

describe("the rules of a beat", () => {
  const byRules = checkOf(AgentBeatSchema);
  const byHand = (message: AgentBeat) => {
    const parsed = beatOf(message, 3, NOW_MICROS);
    if ("refusal" in parsed) throw parsed.refusal;
  };

  it("and the hand-written check reject the same beats, for the same fields", () => {
    const seen = new Set<string>();
    let accepted = 0;
    fc.assert(
      fc.property(beat, (message) => {
        const wanted = fieldsOf(() => byRules(message)).map((field) => `beats[3].${field}`);
        const found = fieldsOf(() => byHand(message));
        // A list that is too long is rejected without further checks, so other violations are not reported.
        if (hasOddTime(message) || message.wakeReplies.length > 16)
          expect(found).toEqual(expect.arrayContaining(wanted));
        else expect(found).toEqual(wanted);
        expect(found.length === 0).toBe(wanted.length === 0);
        if (wanted.length === 0) accepted++;
        for (const field of wanted) seen.add(field);
      }),
      { numRuns: 5_000 },
    );
    // The beats were of all kinds: otherwise the agreement would prove little.
    expect(accepted).toBeGreaterThan(50);
    expect([...seen].sort()).toEqual([
      "beats[3].agent_id",
      "beats[3].exhaustion",
      "beats[3].exhaustion.reason",
      "beats[3].exhaustion.recovery_at",
      "beats[3].exhaustion.retry_after",
      "beats[3].known_revision",
      "beats[3].session_start",
      "beats[3].status",
      "beats[3].wake_replies",
      "beats[3].wake_replies[0].note",
      "beats[3].wake_replies[0].offer_revision",
      "beats[3].wake_replies[0].outcome",
      "beats[3].wake_replies[0].reason",
      "beats[3].wake_replies[0].type",
      "beats[3].wake_replies[0].wake_id",
      "beats[3].wake_replies[1].note",
      "beats[3].wake_replies[1].offer_revision",
      "beats[3].wake_replies[1].outcome",
      "beats[3].wake_replies[1].reason",
      "beats[3].wake_replies[1].type",
      "beats[3].wake_replies[1].wake_id",
    ]);
  });

  it("are not applied to the message that carries them", () => {
    const checkUnary = checkOf(SendHeartbeatRequestSchema);
    const checkStreamed = checkOf(HeartbeatRequestSchema);
    fc.assert(
      fc.property(fc.array(beat, { maxLength: 5 }), (beats) => {
        expect(fieldsOf(() => checkUnary(create(SendHeartbeatRequestSchema, { beats })))).toEqual([]);
        expect(fieldsOf(() => checkStreamed(create(HeartbeatRequestSchema, { sequence: 1n, beats })))).toEqual([]);
      }),
    );
  });
});

describe("the rules of a message on a heartbeat stream", () => {
  const byRules = checkOf(HeartbeatRequestSchema);
  const anyBeat = create(AgentBeatSchema, { agentId: "" });
  const request = fc
    .record({
      sequence: fc.oneof(fc.constantFrom(0n, 1n, 2n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      beats: fc.constantFrom(0, 1, 999, 1_000, 1_001).map((length) => new Array<AgentBeat>(length).fill(anyBeat)),
      clawIdentifier: fc.oneof(fc.constant(""), name),
      instanceId: fc.oneof(fc.constant(""), name),
      generation: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      takesWakes: fc.boolean(),
    })
    .map((init) => create(HeartbeatRequestSchema, init));

  it("and the hand-written check reject the same messages, for the same fields", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(request, (message) => {
        const wanted = fieldsOf(() => byRules(message));
        const found = fieldsOf(() => checkEnvelope(message, 0n));
        // A list that is too long is rejected without further checks, so other violations are not reported.
        if (message.beats.length > 1_000) expect(found).toEqual(expect.arrayContaining(wanted));
        else expect(found).toEqual(wanted);
        for (const field of found) seen.add(field);
        // Later ones too, except fields that count in the first message only.
        if (message.sequence < 2n) return;
        const later = fieldsOf(() => checkEnvelope(message, message.sequence - 1n));
        expect(later).toEqual(found.filter((field) => field === "beats"));
      }),
      { numRuns: 1_000 },
    );
    expect([...seen].sort()).toEqual(["beats", "claw_identifier", "instance_id", "sequence"]);
  });
});
