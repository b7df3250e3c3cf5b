import { describe, expect, it } from "vitest";
import { AgentStatus } from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type AgentClaim, BeatBook } from "../../src/heartbeats/beat-book.ts";
import type { BeatView } from "../../src/views.ts";

function bookOf(...agentIds: string[]): BeatBook {
  const book = new BeatBook();
  for (const agentId of agentIds) book.add(agentId);
  return book;
}

const FIRST = { sessionStart: SessionStart.FIRST };
const ANEW = { sessionStart: SessionStart.ANEW };
const RESUME = { sessionStart: SessionStart.RESUME };

function result(fields: Partial<BeatView>): BeatView {
  const nothing = { sequence: 0n, status: undefined, exhaustion: undefined, revision: 0n, refusal: undefined };
  return { agentId: "a", ...nothing, ...fields };
}

const upTo = (beats: number) => ({ beats, bytes: 1_000_000 });

const refused = (reason: string) => ({ reason, message: "no", retryAfterMs: undefined });

describe("BeatBook", () => {
  it("begins with beats that say nothing", () => {
    const book = bookOf("a", "b");
    expect(book.take(1n, upTo(10))).toEqual([
      { agentId: "a", ...FIRST },
      { agentId: "b", ...FIRST },
    ]);
    expect(book.hasWork).toBe(false);
  });

  it("leaves for the next message what does not fit", () => {
    const book = bookOf("a", "b", "c");
    expect(book.take(1n, upTo(2))).toHaveLength(2);
    expect(book.hasWork).toBe(true);
    expect(book.take(2n, upTo(2))).toEqual([{ agentId: "c", ...FIRST }]);
  });

  it("sends a word until it is acknowledged, then beats without one", () => {
    const book = bookOf("a");
    book.say("a", { exhausted: { reason: "rate_limit", retryAfterMs: 1_500 } });
    expect(book.take(1n, upTo(10))).toMatchObject([
      { status: AgentStatus.EXHAUSTED, exhaustion: { recovery: { case: "retryAfter", value: { seconds: 1n } } } },
    ]);
    book.restart();
    expect(book.take(1n, upTo(10))).toMatchObject([{ status: AgentStatus.EXHAUSTED }]);
    book.acknowledge(1n);
    book.renewAll();
    expect(book.take(2n, upTo(10))).toEqual([{ agentId: "a" }]);
  });

  it("sends the newest word alone", () => {
    const book = bookOf("a");
    book.say("a", "on_call");
    book.say("a", "busy");
    expect(book.take(1n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, ...FIRST }]);
    book.say("a", "idle");
    book.acknowledge(1n);
    expect(book.take(2n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.IDLE }]);
  });

  it("says what the agent is with the next heartbeat where the server thought it offline", () => {
    const book = bookOf("a");
    book.say("a", "busy");
    book.take(1n, upTo(10));
    book.acknowledge(1n);
    book.learn(result({ status: "offline", revision: 5n }));
    expect(book.hasWork).toBe(false);
    book.renewAll();
    expect(book.take(2n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, knownRevision: 5n }]);
    book.learn(result({ sequence: 2n, status: "busy", revision: 6n }));
    book.renewAll();
    expect(book.take(3n, upTo(10))).toEqual([{ agentId: "a", knownRevision: 6n }]);
  });

  it("says on a new stream what the agent is, but not an exhaustion that the server may have ended", () => {
    const book = bookOf("busy", "exhausted");
    book.say("busy", "busy");
    book.say("exhausted", { exhausted: { reason: "billing" } });
    book.take(1n, upTo(10));
    book.acknowledge(1n);
    book.restart();
    expect(book.take(1n, upTo(10))).toEqual([
      { agentId: "busy", status: AgentStatus.BUSY, ...RESUME },
      { agentId: "exhausted", ...RESUME },
    ]);
  });

  it("adopts what a service made of an agent, and says that it knows", () => {
    const book = bookOf("a");
    book.say("a", "idle");
    book.take(1n, upTo(10));
    book.acknowledge(1n);
    expect(book.learn(result({ status: "on_call", revision: 7n }))).toBe(true);
    book.restart();
    const beat = { agentId: "a", status: AgentStatus.ON_CALL, knownRevision: 7n, ...RESUME };
    expect(book.take(1n, upTo(10))).toEqual([beat]);
  });

  it("does not make a word look informed by news that came after it", () => {
    const book = bookOf("a");
    book.learn(result({ status: "idle", revision: 5n }));
    book.say("a", "busy");
    book.learn(result({ status: "on_call", revision: 9n }));
    expect(book.take(1n, upTo(10))).toEqual([{ agentId: "a", status: AgentStatus.BUSY, knownRevision: 5n }]);
  });

  it("gives up a word that was held off, and goes by the server's view", () => {
    const book = bookOf("a");
    book.say("a", "idle");
    book.take(1n, upTo(10));
    const heldOff = { sequence: 1n, status: "on_call", revision: 9n, refusal: refused("REPORT_OUTDATED") } as const;
    expect(book.learn(result(heldOff))).toBe(true);
    book.acknowledge(1n);
    book.renewAll();
    expect(book.take(2n, upTo(10))).toEqual([{ agentId: "a", knownRevision: 9n }]);
  });

  it("takes no notice of what is older than what it knows or has said since", () => {
    const book = bookOf("a");
    book.learn(result({ status: "on_call", revision: 9n }));
    expect(book.learn(result({ status: "idle", revision: 8n }))).toBe(false);
    book.say("a", "busy");
    book.take(1n, upTo(10));
    book.say("a", "idle");
    expect(book.learn(result({ sequence: 1n, status: "busy", revision: 10n }))).toBe(false);
  });

  it.each(["SESSION_SUPERSEDED", "AGENT_NOT_FOUND", "WRONG_CLAW"])("stops beating after %s", (reason) => {
    const book = bookOf("a", "b");
    expect(book.learn(result({ refusal: refused(reason) }))).toBe(true);
    book.say("a", "busy");
    expect(book.take(1n, upTo(10))).toEqual([{ agentId: "b", ...FIRST }]);
  });

  it("is empty when all goodbyes are acknowledged", () => {
    const book = bookOf("a", "b");
    book.say("a", "busy");
    book.sayGoodbye();
    book.say("a", "idle");
    expect(book.take(1n, upTo(10))).toEqual([
      { agentId: "a", status: AgentStatus.BUSY, ...FIRST },
      { agentId: "a", leaving: true, ...FIRST },
      { agentId: "b", leaving: true, ...FIRST },
    ]);
    book.learn(result({ sequence: 1n, status: "offline", revision: 3n }));
    expect(book.size).toBe(2);
    book.acknowledge(1n);
    expect(book.size).toBe(0);
  });

  it("says nothing after a goodbye, which would bring the agent back", () => {
    const book = bookOf("a");
    book.take(1n, upTo(10));
    book.acknowledge(1n);
    book.say("a", "leaving");
    book.renewAll();
    expect(book.take(2n, upTo(10))).toEqual([{ agentId: "a", leaving: true }]);
    book.renewAll();
    expect(book.take(3n, upTo(10))).toEqual([]);
    // On a new stream it is said again.
    book.restart();
    expect(book.take(1n, upTo(10))).toEqual([{ agentId: "a", leaving: true, ...RESUME }]);
  });

  describe("says why an agent beats", () => {
    const startsOf = (book: BeatBook, sequence: bigint) =>
      book.take(sequence, upTo(10)).map(({ sessionStart }) => sessionStart);

    function claimed(start: AgentClaim["start"]) {
      const book = new BeatBook();
      const claim: AgentClaim = { start };
      book.add("a", claim);
      return { book, claim };
    }

    it("until the server has answered, and on each new stream that it resumes", () => {
      const { book, claim } = claimed("first");
      expect(startsOf(book, 1n)).toEqual([SessionStart.FIRST]);
      book.renewAll();
      expect(startsOf(book, 2n)).toEqual([SessionStart.FIRST]);
      expect(claim.start).toBe("first");
      book.acknowledge(1n);
      expect(claim.start).toBe("resume");
      book.renewAll();
      expect(startsOf(book, 3n)).toEqual([undefined]);
      for (const _ of ["once", "again"]) {
        book.restart();
        expect(startsOf(book, 1n)).toEqual([SessionStart.RESUME]);
        book.learn(result({ sequence: 1n, status: "idle", revision: 2n }));
        book.renewAll();
        expect(startsOf(book, 2n)).toEqual([undefined]);
      }
    });

    it("as a claim again where the stream broke before the server answered", () => {
      for (const start of ["first", "anew"] as const) {
        const { book } = claimed(start);
        const said = startsOf(book, 1n);
        book.restart();
        expect(startsOf(book, 1n)).toEqual(said);
      }
    });

    it("once on a stream where it claims anew", () => {
      const { book } = claimed("anew");
      expect(book.take(1n, upTo(10))).toEqual([{ agentId: "a", ...ANEW }]);
      book.renewAll();
      expect(startsOf(book, 2n)).toEqual([undefined]);
    });

    it("again where the server refused the beat for something else that it said", () => {
      for (const start of ["first", "anew", "resume"] as const) {
        const { book, claim } = claimed(start);
        book.say("a", { exhausted: { reason: "billing" } });
        const said = startsOf(book, 1n);
        book.learn(result({ sequence: 1n, refusal: refused("INVALID_FIELD") }));
        book.acknowledge(1n);
        expect(claim.start).toBe(start);
        book.renewAll();
        expect(startsOf(book, 2n)).toEqual(said);
      }
    });

    it("as taken in where only its report was held off, and by news of what it is", () => {
      const heldOff = { sequence: 1n, status: "on_call", revision: 9n, refusal: refused("REPORT_OUTDATED") } as const;
      for (const answer of [result(heldOff), result({ status: "busy", revision: 3n })]) {
        const { book, claim } = claimed("anew");
        book.say("a", "idle");
        book.take(1n, upTo(10));
        book.learn(answer);
        expect(claim.start).toBe("resume");
      }
    });

    it("on the stream that adopts it", () => {
      const { book, claim } = claimed("first");
      book.take(1n, upTo(10));
      const other = new BeatBook();
      for (const entry of book.tearOut(0)) other.adopt(entry);
      expect(startsOf(other, 1n)).toEqual([SessionStart.FIRST]);
      other.acknowledge(1n);
      expect(claim.start).toBe("resume");
    });
  });
});
