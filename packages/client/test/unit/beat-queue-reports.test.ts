import { describe, expect, it } from "vitest";
import { AgentStatus } from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { BeatQueue, type ReportResult } from "../../src/heartbeats/beat-queue.ts";
import type { BeatView } from "../../src/views.ts";

const ALL = { beats: 1_000, bytes: 1_000_000 };

function result(fields: Partial<BeatView>): BeatView {
  const nothing = { sequence: 0n, status: undefined, exhaustion: undefined, revision: 0n, refusal: undefined };
  return { kind: "result", agentId: "a", ...nothing, ...fields };
}

/** A queue in which the agent has reported `busy`, and message 1 carries that. */
function reportingBusy(): { queue: BeatQueue; results: ReportResult[] } {
  const queue = new BeatQueue();
  const results: ReportResult[] = [];
  queue.add("a");
  queue.report("a", "busy", (result) => results.push(result));
  queue.nextBeats(1n, ALL);
  return { queue, results };
}

describe("a report that the server has not acknowledged", () => {
  it("yields to a status that the server sends before the acknowledgement", () => {
    const { queue, results } = reportingBusy();
    queue.receive(result({ status: "on_call", revision: 9n }));
    queue.acknowledge(1n);
    expect(results).toEqual([{ kind: "applied", serverStatus: "on_call" }]);
    queue.restart();
    expect(queue.nextBeats(1n, ALL)).toMatchObject([{ status: AgentStatus.ON_CALL, knownRevision: 9n }]);
  });

  it("counts again on a new stream, although the server sent another status on the former one", () => {
    const { queue, results } = reportingBusy();
    queue.receive(result({ status: "on_call", revision: 9n }));
    queue.restart();
    expect(queue.nextBeats(1n, ALL)).toMatchObject([{ status: AgentStatus.BUSY }]);
    queue.acknowledge(1n);
    expect(results).toEqual([{ kind: "applied", serverStatus: undefined }]);
    queue.restart();
    expect(queue.nextBeats(1n, ALL)).toMatchObject([{ status: AgentStatus.BUSY }]);
  });
});

describe("a result of the server", () => {
  it("is passed on also at the known revision: a new stream begins with it", () => {
    const queue = new BeatQueue();
    queue.add("a");
    expect(queue.receive(result({ status: "idle", revision: 5n }))).toBe(true);
    expect(queue.receive(result({ status: "idle", revision: 5n }))).toBe(true);
    expect(queue.receive(result({ status: "idle", revision: 4n }))).toBe(false);
  });
});

describe("an agent", () => {
  it("continues to send beats after a rejection that asks for a retry", () => {
    const { queue, results } = reportingBusy();
    const refusal = {
      code: "ABORTED",
      reason: "LIMIT_EXCEEDED",
      message: "Too many changes.",
      retryAfterMs: 100,
    } as const;
    queue.receive(result({ sequence: 1n, refusal }));
    expect(results).toMatchObject([{ kind: "refused", refusal }]);
    expect(queue.has("a")).toBe(true);
    queue.renewAll();
    expect(queue.nextBeats(2n, ALL)).toMatchObject([{ agentId: "a" }]);
  });

  it("resumes its session on a new stream only if its own first message was acknowledged", () => {
    const queue = new BeatQueue();
    queue.add("a");
    queue.nextBeats(1n, ALL);
    queue.add("b");
    queue.nextBeats(2n, ALL);
    queue.acknowledge(1n);
    queue.restart();
    expect(queue.nextBeats(1n, ALL)).toEqual([
      { agentId: "a", sessionStart: SessionStart.RESUME },
      { agentId: "b", sessionStart: SessionStart.FIRST },
    ]);
  });

  it("is not settled while its goodbye waits, nor while the goodbye is not acknowledged", () => {
    const queue = new BeatQueue();
    queue.add("a");
    expect(queue.isSettled).toBe(true);
    queue.leaveAll();
    expect(queue.isSettled).toBe(false);
    queue.nextBeats(1n, ALL);
    expect(queue.isSettled).toBe(false);
    queue.acknowledge(1n);
    expect(queue.isSettled).toBe(true);
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
    const queue = new BeatQueue();
    for (const agentId of ["ab", "cd", "ef"]) queue.add(agentId);
    expect(queue.nextBeats(1n, { beats: 1_000, bytes })).toHaveLength(beats);
    expect(queue.hasWork).toBe(beats < 3);
  });

  it("carries one beat at least, even if the id of its agent is longer than the limit", () => {
    const queue = new BeatQueue();
    queue.add("a".repeat(128));
    expect(queue.nextBeats(1n, { beats: 1_000, bytes: 100 })).toHaveLength(1);
  });
});
