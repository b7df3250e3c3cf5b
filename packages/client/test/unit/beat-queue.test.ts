import { describe, expect, it } from "vitest";
import type { ErrorReason } from "../../../../common/contract/enum-names.ts";
import { AgentStatus } from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type AgentClaim, BeatQueue } from "../../src/heartbeats/beat-queue.ts";
import type { BeatView } from "../../src/views.ts";

function bookOf(...agentIds: string[]): BeatQueue {
  const queue = new BeatQueue();
  for (const agentId of agentIds) queue.add(agentId);
  return queue;
}

const FIRST = { sessionStart: SessionStart.FIRST };
const ANEW = { sessionStart: SessionStart.ANEW };
const RESUME = { sessionStart: SessionStart.RESUME };

function result(fields: Partial<BeatView>): BeatView {
  const nothing = { sequence: 0n, status: undefined, exhaustion: undefined, revision: 0n, refusal: undefined };
  return { kind: "result", agentId: "a", ...nothing, ...fields };
}

const upTo = (beats: number) => ({ beats, bytes: 1_000_000 });

const refused = (reason: ErrorReason) => ({ code: "ABORTED", reason, message: "no", retryAfterMs: undefined }) as const;

describe("BeatQueue", () => {
  it("starts with beats without a status", () => {
    const queue = bookOf("a", "b");
    expect(queue.nextBeats(1n, upTo(10))).toEqual([
      { agentId: "a", ...FIRST },
      { agentId: "b", ...FIRST },
    ]);
    expect(queue.hasWork).toBe(false);
  });

  it("leaves beats that do not fit to the next message", () => {
    const queue = bookOf("a", "b", "c");
    expect(queue.nextBeats(1n, upTo(2))).toHaveLength(2);
    expect(queue.hasWork).toBe(true);
    expect(queue.nextBeats(2n, upTo(2))).toEqual([{ agentId: "c", ...FIRST }]);
  });

  it("sends a report until it is acknowledged, then beats without one", () => {
    const queue = bookOf("a");
    queue.report("a", { exhausted: { reason: "rate_limit", retryAfterMs: 1_500 } });
    expect(queue.nextBeats(1n, upTo(10))).toMatchObject([
      { status: AgentStatus.EXHAUSTED, exhaustion: { recovery: { case: "retryAfter", value: { seconds: 1n } } } },
    ]);
    queue.restart();
    expect(queue.nextBeats(1n, upTo(10))).toMatchObject([{ status: AgentStatus.EXHAUSTED }]);
    queue.acknowledge(1n);
    queue.renewAll();
    expect(queue.nextBeats(2n, upTo(10))).toEqual([{ agentId: "a" }]);
  });

  it("sends only the newest report", () => {
    const queue = bookOf("a");
    queue.report("a", "on_call");
    queue.report("a", "busy");
    expect(queue.nextBeats(1n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, ...FIRST }]);
    queue.report("a", "idle");
    queue.acknowledge(1n);
    expect(queue.nextBeats(2n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.IDLE }]);
  });

  it("repeats the status with the next heartbeat if the server has the agent as offline", () => {
    const queue = bookOf("a");
    queue.report("a", "busy");
    queue.nextBeats(1n, upTo(10));
    queue.acknowledge(1n);
    queue.receive(result({ status: "offline", revision: 5n }));
    expect(queue.hasWork).toBe(false);
    queue.renewAll();
    expect(queue.nextBeats(2n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, knownRevision: 5n }]);
    queue.receive(result({ sequence: 2n, status: "busy", revision: 6n }));
    queue.renewAll();
    expect(queue.nextBeats(3n, upTo(10))).toEqual([{ agentId: "a", knownRevision: 6n }]);
  });

  it("repeats the status on a new stream, but not an exhaustion that the server may have ended", () => {
    const queue = bookOf("busy", "exhausted");
    queue.report("busy", "busy");
    queue.report("exhausted", { exhausted: { reason: "billing" } });
    queue.nextBeats(1n, upTo(10));
    queue.acknowledge(1n);
    queue.restart();
    expect(queue.nextBeats(1n, upTo(10))).toEqual([
      { agentId: "busy", status: AgentStatus.BUSY, ...RESUME },
      { agentId: "exhausted", ...RESUME },
    ]);
  });

  it("adopts the status that a service set, and reports the revision that it knows", () => {
    const queue = bookOf("a");
    queue.report("a", "idle");
    queue.nextBeats(1n, upTo(10));
    queue.acknowledge(1n);
    expect(queue.receive(result({ status: "on_call", revision: 7n }))).toBe(true);
    queue.restart();
    const beat = { agentId: "a", status: AgentStatus.ON_CALL, knownRevision: 7n, ...RESUME };
    expect(queue.nextBeats(1n, upTo(10))).toEqual([beat]);
  });

  it("does not make an older report look informed by a later revision", () => {
    const queue = bookOf("a");
    queue.receive(result({ status: "idle", revision: 5n }));
    queue.report("a", "busy");
    queue.receive(result({ status: "on_call", revision: 9n }));
    expect(queue.nextBeats(1n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, knownRevision: 5n }]);
  });

  it("drops a report that was held off, and adopts the status of the server", () => {
    const queue = bookOf("a");
    queue.report("a", "idle");
    queue.nextBeats(1n, upTo(10));
    const heldOff = { sequence: 1n, status: "on_call", revision: 9n, refusal: refused("REPORT_OUTDATED") } as const;
    expect(queue.receive(result(heldOff))).toBe(true);
    queue.acknowledge(1n);
    queue.renewAll();
    expect(queue.nextBeats(2n, upTo(10))).toEqual([{ agentId: "a", knownRevision: 9n }]);
  });

  it("ignores results that are older than its known revision or its newest report", () => {
    const queue = bookOf("a");
    queue.receive(result({ status: "on_call", revision: 9n }));
    expect(queue.receive(result({ status: "idle", revision: 8n }))).toBe(false);
    queue.report("a", "busy");
    queue.nextBeats(1n, upTo(10));
    queue.report("a", "idle");
    expect(queue.receive(result({ sequence: 1n, status: "busy", revision: 10n }))).toBe(false);
  });

  it.each(["SESSION_SUPERSEDED", "AGENT_NOT_FOUND", "WRONG_CLAW"] as const)("stops beating after %s", (reason) => {
    const queue = bookOf("a", "b");
    expect(queue.receive(result({ refusal: refused(reason) }))).toBe(true);
    queue.report("a", "busy");
    expect(queue.nextBeats(1n, upTo(10))).toEqual([{ agentId: "b", ...FIRST }]);
  });

  it("is empty when all goodbyes are acknowledged", () => {
    const queue = bookOf("a", "b");
    queue.report("a", "busy");
    queue.leaveAll();
    queue.report("a", "idle");
    expect(queue.nextBeats(1n, upTo(10))).toEqual([
      { agentId: "a", status: AgentStatus.BUSY, ...FIRST },
      { agentId: "a", leaving: true, ...FIRST },
      { agentId: "b", leaving: true, ...FIRST },
    ]);
    queue.receive(result({ sequence: 1n, status: "offline", revision: 3n }));
    expect(queue.size).toBe(2);
    queue.acknowledge(1n);
    expect(queue.size).toBe(0);
  });

  it("sends nothing after a goodbye, which would bring the agent back", () => {
    const queue = bookOf("a");
    queue.nextBeats(1n, upTo(10));
    queue.acknowledge(1n);
    queue.report("a", "leaving");
    queue.renewAll();
    expect(queue.nextBeats(2n, upTo(10))).toEqual([{ agentId: "a", leaving: true }]);
    queue.renewAll();
    expect(queue.nextBeats(3n, upTo(10))).toEqual([]);
    // A new stream sends it again.
    queue.restart();
    expect(queue.nextBeats(1n, upTo(10))).toEqual([{ agentId: "a", leaving: true, ...RESUME }]);
  });

  describe("sends why an agent beats", () => {
    const startsOf = (queue: BeatQueue, sequence: bigint) =>
      queue.nextBeats(sequence, upTo(10)).map(({ sessionStart }) => sessionStart);

    function claimed(start: AgentClaim["start"]) {
      const queue = new BeatQueue();
      const claim: AgentClaim = { start };
      queue.add("a", claim);
      return { queue, claim };
    }

    it("until the server has responded, and on each new stream that it resumes", () => {
      const { queue, claim } = claimed("first");
      expect(startsOf(queue, 1n)).toEqual([SessionStart.FIRST]);
      queue.renewAll();
      expect(startsOf(queue, 2n)).toEqual([SessionStart.FIRST]);
      expect(claim.start).toBe("first");
      queue.acknowledge(1n);
      expect(claim.start).toBe("resume");
      queue.renewAll();
      expect(startsOf(queue, 3n)).toEqual([undefined]);
      for (const _ of ["once", "again"]) {
        queue.restart();
        expect(startsOf(queue, 1n)).toEqual([SessionStart.RESUME]);
        queue.receive(result({ sequence: 1n, status: "idle", revision: 2n }));
        queue.renewAll();
        expect(startsOf(queue, 2n)).toEqual([undefined]);
      }
    });

    it("as a claim again when the stream broke before the server responded", () => {
      for (const start of ["first", "anew"] as const) {
        const { queue } = claimed(start);
        const said = startsOf(queue, 1n);
        queue.restart();
        expect(startsOf(queue, 1n)).toEqual(said);
      }
    });

    it("once on a stream with a new claim", () => {
      const { queue } = claimed("anew");
      expect(queue.nextBeats(1n, upTo(10))).toEqual([{ agentId: "a", ...ANEW }]);
      queue.renewAll();
      expect(startsOf(queue, 2n)).toEqual([undefined]);
    });

    it("again if the server rejected the beat for another field", () => {
      for (const start of ["first", "anew", "resume"] as const) {
        const { queue, claim } = claimed(start);
        queue.report("a", { exhausted: { reason: "billing" } });
        const said = startsOf(queue, 1n);
        queue.receive(result({ sequence: 1n, refusal: refused("INVALID_FIELD") }));
        queue.acknowledge(1n);
        expect(claim.start).toBe(start);
        queue.renewAll();
        expect(startsOf(queue, 2n)).toEqual(said);
      }
    });

    it("as accepted if only its report was held off, and by a result for the agent", () => {
      const heldOff = { sequence: 1n, status: "on_call", revision: 9n, refusal: refused("REPORT_OUTDATED") } as const;
      for (const answer of [result(heldOff), result({ status: "busy", revision: 3n })]) {
        const { queue, claim } = claimed("anew");
        queue.report("a", "idle");
        queue.nextBeats(1n, upTo(10));
        queue.receive(answer);
        expect(claim.start).toBe("resume");
      }
    });

    it("on the stream that adopts it", () => {
      const { queue, claim } = claimed("first");
      queue.nextBeats(1n, upTo(10));
      const other = new BeatQueue();
      for (const entry of queue.removeSurplus(0)) other.adopt(entry);
      expect(startsOf(other, 1n)).toEqual([SessionStart.FIRST]);
      other.acknowledge(1n);
      expect(claim.start).toBe("resume");
    });
  });
});
