import { describe, expect, it } from "vitest";
import { AgentStatus } from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { BeatBook, type Verdict } from "../../src/beat-book.ts";
import type { BeatView } from "../../src/views.ts";

const ALL = { beats: 1_000, bytes: 1_000_000 };

function result(fields: Partial<BeatView>): BeatView {
  const nothing = { sequence: 0n, status: undefined, exhaustion: undefined, revision: 0n, refusal: undefined };
  return { kind: "result", agentId: "a", ...nothing, ...fields };
}

/** A book in which the agent has reported `busy`, and message 1 carries that. */
function reportingBusy(): { book: BeatBook; verdicts: Verdict[] } {
  const book = new BeatBook();
  const verdicts: Verdict[] = [];
  book.add("a");
  book.say("a", "busy", (verdict) => verdicts.push(verdict));
  book.take(1n, ALL);
  return { book, verdicts };
}

describe("a report that the server has not acknowledged", () => {
  it("yields to what the server tells of the agent before it acknowledges the report", () => {
    const { book, verdicts } = reportingBusy();
    book.learn(result({ status: "on_call", revision: 9n }));
    book.acknowledge(1n);
    expect(verdicts).toEqual([{ kind: "applied", told: "on_call" }]);
    book.restart();
    expect(book.take(1n, ALL)).toMatchObject([{ status: AgentStatus.ON_CALL, knownRevision: 9n }]);
  });

  it("counts again on a new stream, whatever the server told on the former one", () => {
    const { book, verdicts } = reportingBusy();
    book.learn(result({ status: "on_call", revision: 9n }));
    book.restart();
    expect(book.take(1n, ALL)).toMatchObject([{ status: AgentStatus.BUSY }]);
    book.acknowledge(1n);
    expect(verdicts).toEqual([{ kind: "applied", told: undefined }]);
    book.restart();
    expect(book.take(1n, ALL)).toMatchObject([{ status: AgentStatus.BUSY }]);
  });
});

describe("what the server tells", () => {
  it("is news also at the revision that is known: a new stream begins with it", () => {
    const book = new BeatBook();
    book.add("a");
    expect(book.learn(result({ status: "idle", revision: 5n }))).toBe(true);
    expect(book.learn(result({ status: "idle", revision: 5n }))).toBe(true);
    expect(book.learn(result({ status: "idle", revision: 4n }))).toBe(false);
  });
});

describe("an agent", () => {
  it("goes on beating after a rejection that asks for a retry", () => {
    const { book, verdicts } = reportingBusy();
    const refusal = { reason: "LIMIT_EXCEEDED", message: "Too many changes.", retryAfterMs: 100 };
    book.learn(result({ sequence: 1n, refusal }));
    expect(verdicts).toMatchObject([{ kind: "refused", refusal }]);
    expect(book.has("a")).toBe(true);
    book.renewAll();
    expect(book.take(2n, ALL)).toMatchObject([{ agentId: "a" }]);
  });

  it("resumes its session on a new stream only if its own first message was acknowledged", () => {
    const book = new BeatBook();
    book.add("a");
    book.take(1n, ALL);
    book.add("b");
    book.take(2n, ALL);
    book.acknowledge(1n);
    book.restart();
    expect(book.take(1n, ALL)).toEqual([
      { agentId: "a", sessionStart: SessionStart.RESUME },
      { agentId: "b", sessionStart: SessionStart.FIRST },
    ]);
  });

  it("is not settled while its goodbye waits, nor while the goodbye is not acknowledged", () => {
    const book = new BeatBook();
    book.add("a");
    expect(book.isSettled).toBe(true);
    book.sayGoodbye();
    expect(book.isSettled).toBe(false);
    book.take(1n, ALL);
    expect(book.isSettled).toBe(false);
    book.acknowledge(1n);
    expect(book.isSettled).toBe(true);
  });
});

describe("a message", () => {
  // Each beat takes the bytes of its agent's id and 64 more.
  it.each([
    { bytes: 131, beats: 1 },
    { bytes: 132, beats: 2 },
    { bytes: 197, beats: 2 },
    { bytes: 198, beats: 3 },
  ])("of $bytes bytes at most carries $beats beats of 66 bytes", ({ bytes, beats }) => {
    const book = new BeatBook();
    for (const agentId of ["ab", "cd", "ef"]) book.add(agentId);
    expect(book.take(1n, { beats: 1_000, bytes })).toHaveLength(beats);
    expect(book.hasWork).toBe(beats < 3);
  });

  it("carries one beat at least, however long its agent's id is", () => {
    const book = new BeatBook();
    book.add("a".repeat(128));
    expect(book.take(1n, { beats: 1_000, bytes: 100 })).toHaveLength(1);
  });
});
