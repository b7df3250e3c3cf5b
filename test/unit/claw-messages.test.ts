import { isFieldSet, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it, test } from "vitest";
import { HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { type ClawMessage, messageWithin } from "../../src/domain/message-to-claw.ts";
import { MessageWindow } from "../../src/liveness/message-window.ts";
import { Outbox } from "../../src/liveness/outbox.ts";
import { ENVELOPE_FIELDS, FIELD_OF_KIND, responsesOf } from "../../src/rpc/convert/message-to-claw.ts";

type Kind = ClawMessage["kind"];
type Sample<K extends Kind> = Extract<ClawMessage, { readonly kind: K }>;

const refusal = (reason: Refusal["reason"]) => new Refusal(reason, "No.");

/** One message of each kind. A new kind does not compile without one. */
const SAMPLES: { readonly [K in Kind]: Sample<K> } = {
  result: {
    kind: "result",
    agentId: "a",
    status: "busy",
    exhaustion: null,
    revision: 7n,
    refusal: null,
    sequence: 3n,
    beatIndex: 1,
  },
  change: { kind: "change", agentId: "a", status: "idle", exhaustion: null, revision: 8n },
  lost: { kind: "lost", agentId: "a", refusal: refusal("SESSION_SUPERSEDED") },
  wake: {
    kind: "wake",
    agentId: "a",
    wakeId: "slot-1",
    offerRevision: 9n,
    state: "offered",
    reason: null,
    claim: "busy",
    answerWithinMs: 30_000,
    payload: new Uint8Array([1]),
    isCancelRequested: false,
    expiresAt: 1_790_000_000_000_000,
  },
  draining: { kind: "draining", reconnectWithinMs: 2_500 },
};
const samples = Object.values(SAMPLES);
const PACE = { intervalMs: 10_000, leaseMs: 30_000 };

describe("a message to a claw", () => {
  it.each(samples)("is sent in the response's field of its kind: $kind", (message) => {
    const [response, ...rest] = responsesOf({ acknowledgedSequence: 1n, messages: [message] }, 0n, PACE);
    if (response === undefined) throw new Error("no response");
    const carrying = HeartbeatResponseSchema.fields.filter(
      (field) => isFieldSet(response, field) && !ENVELOPE_FIELDS.some((name) => name === field.name),
    );
    expect(carrying.map(({ name }) => name)).toEqual([FIELD_OF_KIND[message.kind]]);
    expect(response.acknowledgedSequence).toBe(1n);
    expect(rest).toEqual([]);
  });

  test("stays within 64 KiB with wakes, however many there are", () => {
    const wakes = Array.from({ length: 100 }, (_, index) => ({
      ...SAMPLES.wake,
      wakeId: `${"é".repeat(120)}${index}`,
      payload: new Uint8Array(4_096),
    }));
    const responses = [...responsesOf({ acknowledgedSequence: 1n, messages: wakes }, 0n, PACE)];
    expect(responses.flatMap(({ wakeUpdates }) => wakeUpdates.map(({ wakeId }) => wakeId))).toEqual(
      wakes.map(({ wakeId }) => wakeId),
    );
    for (const response of responses) {
      expect(toBinary(HeartbeatResponseSchema, response).length).toBeLessThanOrEqual(65_536);
    }
  });

  test("has a field for each kind: the contract's response has no field without one", () => {
    const known = new Set([...ENVELOPE_FIELDS, ...Object.values(FIELD_OF_KIND)]);
    expect([...known].sort()).toEqual(HeartbeatResponseSchema.fields.map(({ name }) => name).sort());
  });

  it.each(samples)("waits in the outbox until it is taken, once: $kind", (message) => {
    const outbox = new Outbox(1_000);
    outbox.put(message);
    expect(outbox.take(0n)).toEqual({ acknowledgedSequence: 0n, messages: [message], firstIntervalMs: 1_000 });
    expect(outbox.take(0n)).toBeUndefined();
  });
});

describe("an outbox", () => {
  it("keeps all results in order, then the newest change of each agent, then the newest drain request", () => {
    const outbox = new Outbox(1_000);
    const [first, second] = [SAMPLES.result, { ...SAMPLES.result, beatIndex: 2 }];
    const lost = { ...SAMPLES.lost, agentId: "b" };
    outbox.put({ ...SAMPLES.draining, reconnectWithinMs: 1 });
    outbox.put({ ...SAMPLES.change, agentId: "b" });
    outbox.put(SAMPLES.change);
    outbox.put(first);
    outbox.put(lost);
    outbox.put(SAMPLES.draining);
    outbox.put(second);
    expect(outbox.take(0n)?.messages).toEqual([first, second, lost, SAMPLES.change, SAMPLES.draining]);
  });

  it("keeps the newest state of each wake, after results and changes", () => {
    const outbox = new Outbox(1_000);
    const other = { ...SAMPLES.wake, wakeId: "slot-2" };
    const ended = { ...SAMPLES.wake, state: "lapsed", payload: null } as const;
    outbox.put(SAMPLES.wake);
    outbox.put(other);
    outbox.put(ended);
    outbox.put(SAMPLES.change);
    outbox.put(SAMPLES.result);
    expect(outbox.take(0n)?.messages).toEqual([SAMPLES.result, SAMPLES.change, ended, other]);
    expect(outbox.take(0n)).toBeUndefined();
  });

  it("drops a change that the result of a new claim replaces", () => {
    const outbox = new Outbox(1_000);
    outbox.put(SAMPLES.change);
    outbox.dropChange("a");
    expect(outbox.take(0n)).toBeUndefined();
  });

  it("sends each acknowledgement once, and announces the first interval until the second beat is due", () => {
    const outbox = new Outbox(0);
    expect(outbox.take(0n)).toBeUndefined();
    expect(outbox.take(4n)).toEqual({ acknowledgedSequence: 4n, messages: [], firstIntervalMs: undefined });
    expect(outbox.take(4n)).toBeUndefined();
    expect(new Outbox(60_000).take(4n)?.firstIntervalMs).toBe(60_000);
  });

  it.each([
    { what: "1 000 results", results: 1_000, characters: 1 },
    { what: "262 144 characters", results: 2, characters: 131_072 },
  ])("is full with $what, until they are taken", ({ results, characters }) => {
    const outbox = new Outbox(1_000);
    for (let index = 0; index < results; index += 1) {
      expect(outbox.isFull).toBe(false);
      outbox.put({ ...SAMPLES.result, agentId: "x".repeat(characters) });
    }
    expect(outbox.isFull).toBe(true);
    outbox.take(0n);
    expect(outbox.isFull).toBe(false);
  });

  it("is not full of changes: they are bounded by the stream's agents", () => {
    const outbox = new Outbox(1_000);
    for (let index = 0; index < 2_000; index += 1) outbox.put({ ...SAMPLES.change, agentId: `agent-${index}` });
    expect(outbox.isFull).toBe(false);
  });
});

test("a window acknowledges a message when it and all earlier ones have no unsettled beat", () => {
  const window = new MessageWindow(() => undefined);
  const [first, second] = [window.add(3n, 1), window.add(5n, 2)];
  window.add(9n, 0);
  second.unsettledBeats = 0;
  window.advance();
  expect(window).toMatchObject({ acknowledgedSequence: 0n, isEmpty: false });
  first.unsettledBeats = 0;
  window.advance();
  expect(window).toMatchObject({ acknowledgedSequence: 9n, isEmpty: true });
});

test("a window is full with 64 messages", () => {
  const window = new MessageWindow(() => undefined);
  const messages = Array.from({ length: 64 }, (_, index) => {
    expect(window.isFull).toBe(false);
    return window.add(BigInt(index + 1), 1);
  });
  expect(window.isFull).toBe(true);
  for (const message of messages.slice(0, 1)) message.unsettledBeats = 0;
  window.advance();
  expect(window.isFull).toBe(false);
});

describe("a claw's credential", () => {
  const claw = { kind: "claw", clawIdentifier: "claw-1" } as const;
  const agents = { kind: "agents", agentIds: new Set(["a"]) } as const;

  it.each(["WRONG_CLAW", "AGENT_NOT_FOUND"] as const)("learns nothing of an agent from a result with %s", (reason) => {
    const result = { ...SAMPLES.result, refusal: refusal(reason) };
    expect(messageWithin(claw, result)).toMatchObject({
      status: null,
      revision: null,
      refusal: { reason: "PERMISSION_DENIED" },
    });
    expect(messageWithin(agents, result)).toBe(result);
  });

  it("learns that an agent of its stream was deleted, and not that it was moved", () => {
    const [moved, deleted] = [
      { ...SAMPLES.lost, refusal: refusal("WRONG_CLAW") },
      { ...SAMPLES.lost, refusal: refusal("AGENT_NOT_FOUND") },
    ];
    expect(messageWithin(claw, moved)).toMatchObject({ kind: "lost", refusal: { reason: "PERMISSION_DENIED" } });
    expect(messageWithin(claw, deleted)).toBe(deleted);
    expect(messageWithin(agents, moved)).toBe(moved);
  });

  it.each(samples)("reads other messages as they are: $kind", (message) => {
    expect(messageWithin(claw, message)).toBe(message);
  });
});
