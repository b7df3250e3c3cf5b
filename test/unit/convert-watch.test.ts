import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  AgentChangeType,
  type WatchAgentsResponse,
  WatchAgentsResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { Agent, Transition } from "../../src/domain/agent.ts";
import { asEncoded, encoded } from "../../src/rpc/codec/encoded.ts";
import { createWatchEncoder, MAX_WATCH_MESSAGE_BYTES } from "../../src/rpc/convert/watch.ts";
import type { WatchedChange, WatchMessage } from "../../src/rpc/handlers/backend.ts";

/** The largest messages of the contract: the widest numbers, the longest texts, four bytes a character. */
const LONGEST_NAME = "🛟".repeat(128);
const NOW = Number.MAX_SAFE_INTEGER;
const LARGEST_ID = 2n ** 63n - 1n;

function transition(revision: bigint, more: Partial<Transition> = {}): Transition {
  return {
    revision,
    id: LARGEST_ID,
    agentId: LONGEST_NAME,
    userId: LARGEST_ID,
    fromStatus: "idle",
    toStatus: "exhausted",
    fromClaw: LONGEST_NAME,
    toClaw: LONGEST_NAME,
    cause: "report",
    actor: `agent:${LONGEST_NAME}`,
    occurredAt: NOW,
    requestId: "🛟".repeat(64),
    incidentId: "00000000-0000-0000-0000-000000000000",
    previousRevision: revision - 1n,
    exhaustion: { reason: "billing", exhaustedAt: NOW, recoveryAt: NOW },
    createdAt: NOW,
    statusChangedAt: NOW,
    wake: { wakeId: LONGEST_NAME, state: "abandoned" },
    openWake: { wakeId: LONGEST_NAME, state: "accepted" },
    ...more,
  };
}

const AGENT: Agent = {
  id: LARGEST_ID,
  userId: LARGEST_ID,
  agentId: LONGEST_NAME,
  clawIdentifier: LONGEST_NAME,
  status: "exhausted",
  exhaustion: { reason: "billing", exhaustedAt: NOW, recoveryAt: NOW },
  backoff: { steps: 0, lastAt: null },
  hold: null,
  createdAt: NOW,
  statusChangedAt: NOW,
  revision: LARGEST_ID,
  epoch: 1n,
  held: true,
  replicaId: 1,
  suspectSince: null,
  wakes: null,
  lapsesTo: null,
  lastHeartbeat: NOW,
  leaseExpiresAt: NOW,
};

function message(revision: bigint, more: Partial<WatchMessage>): WatchMessage {
  return { revision, snapshotAgents: [], changes: [], bookmark: undefined, ...more };
}

function updates(from: bigint, count: number): WatchedChange[] {
  return Array.from({ length: count }, (_, index) => ({
    type: "updated" as const,
    transition: transition(from + BigInt(index)),
    conflated: 0,
  }));
}

describe("watch messages", () => {
  it("hold at most 64 KiB, lose nothing and keep the order", () => {
    const encode = createWatchEncoder({ afterRevision: 100n, conflate: false });
    const parts = [...encode(message(1_000n, { changes: updates(101n, 500), bookmark: { snapshotComplete: false } }))];
    for (const part of parts) {
      expect(toBinary(WatchAgentsResponseSchema, part).byteLength).toBeLessThanOrEqual(MAX_WATCH_MESSAGE_BYTES);
    }
    const revisions = parts.flatMap((part) => part.changes.map((change) => change.transition?.revision));
    expect(revisions).toEqual(Array.from({ length: 500 }, (_, index) => 101n + BigInt(index)));
    expect(parts.length).toBeGreaterThan(5);
  });

  it("can be resumed from after each part: no part includes the next one", () => {
    const encode = createWatchEncoder({ afterRevision: 100n, conflate: false });
    const parts = [...encode(message(1_000n, { changes: updates(101n, 500) }))];
    for (const part of parts.slice(0, -1)) {
      expect(part.revision).toBe(part.changes.at(-1)?.transition?.revision);
      expect(part.bookmark).toBeUndefined();
    }
    expect(parts.at(-1)?.revision).toBe(1_000n);
  });

  it("keep the last whole message's revision while merged changes are sent in parts", () => {
    const encode = createWatchEncoder({ afterRevision: 100n, conflate: true });
    const parts = [...encode(message(1_000n, { changes: updates(101n, 500) }))];
    expect(parts.slice(0, -1).every((part) => part.revision === 100n)).toBe(true);
    expect(parts.at(-1)?.revision).toBe(1_000n);
  });

  it("have revision 0 in every part of a snapshot until it is complete", () => {
    const encode = createWatchEncoder({ afterRevision: undefined, conflate: false });
    const agents = Array.from({ length: 300 }, () => AGENT);
    const first = [...encode(message(0n, { snapshotAgents: agents, changes: updates(5n, 3) }))];
    const last = [
      ...encode(message(9n, { snapshotAgents: agents, changes: updates(8n, 2), bookmark: { snapshotComplete: true } })),
    ];
    expect([...first, ...last.slice(0, -1)].every((part) => part.revision === 0n && part.bookmark === undefined)).toBe(
      true,
    );
    expect(last.at(-1)).toMatchObject({ revision: 9n, bookmark: { snapshotComplete: true } });
    for (const part of [...first, ...last]) {
      expect(toBinary(WatchAgentsResponseSchema, part).byteLength).toBeLessThanOrEqual(MAX_WATCH_MESSAGE_BYTES);
    }
    expect([...first, ...last].flatMap((part) => part.snapshotAgents)).toHaveLength(600);
  });

  it("stay single messages while they are small", () => {
    const encode = createWatchEncoder({ afterRevision: 1n, conflate: false });
    expect([...encode(message(7n, { bookmark: { snapshotComplete: false } }))]).toMatchObject([
      { revision: 7n, changes: [], snapshotAgents: [], bookmark: { snapshotComplete: false } },
    ]);
  });

  it("omit clocks that move without transitions", () => {
    const encode = createWatchEncoder({ afterRevision: undefined, conflate: false });
    const [part] = [...encode(message(0n, { snapshotAgents: [AGENT] }))];
    const [agent] = part?.snapshotAgents ?? [];
    expect(agent?.statusChangedAt).toBeDefined();
    expect(agent?.lastHeartbeat).toBeUndefined();
    expect(agent?.leaseExpiresAt).toBeUndefined();
    expect(agent?.suspectSince).toBeUndefined();
  });

  it("share the encoding of a transition between watchers", () => {
    const shared = transition(8n);
    const [one, other, left, merged] = (["updated", "updated", "left", "updated"] as const).map((type, index) => {
      const encode = createWatchEncoder({ afterRevision: 1n, conflate: true });
      const change = { type, transition: shared, conflated: index === 3 ? 2 : 0 };
      return [...encode(message(8n, { changes: [change] }))][0]?.changes[0];
    });
    expect(one).toBe(other);
    expect(left?.type).toBe(AgentChangeType.LEFT);
    expect(left?.agent).toBe(one?.agent);
    expect(left?.transition).toBe(one?.transition);
    expect(merged).toMatchObject({ type: AgentChangeType.UPDATED, conflated: 2 });
    expect(one?.conflated).toBe(0);
  });

  it("decode to the same values when they are joined from encoded parts", () => {
    const [one, two] = [transition(8n), transition(9n, { toStatus: "busy", exhaustion: null })];
    const told: WatchMessage[] = [
      message(9n, { changes: updates(101n, 500), bookmark: { snapshotComplete: false } }),
      message(9n, { changes: [one, two].map((each) => ({ type: "entered", transition: each, conflated: 0 })) }),
      message(9n, { changes: [{ type: "left", transition: one, conflated: 3 }] }),
      message(9n, { bookmark: { snapshotComplete: false } }),
      message(0n, { snapshotAgents: [AGENT], changes: [{ type: "updated", transition: two, conflated: 0 }] }),
    ];
    for (const conflate of [true, false]) {
      const encode = createWatchEncoder({ afterRevision: 1n, conflate });
      for (const part of told.flatMap((each) => [...encode(each)])) {
        const bytes = encoded(WatchAgentsResponseSchema, part);
        expect(fromBinary(WatchAgentsResponseSchema, bytes)).toEqual(part);
        expect(bytes.byteLength).toBeLessThanOrEqual(MAX_WATCH_MESSAGE_BYTES);
        // For listeners that encode the message themselves.
        const standIn = create(WatchAgentsResponseSchema, asEncoded(WatchAgentsResponseSchema, part));
        expect(Buffer.from(toBinary(WatchAgentsResponseSchema, standIn))).toEqual(bytes);
      }
    }
  });

  it("cost one encoding a transition, however many watchers there are", () => {
    const changes = updates(1n, 3);
    const send = () => [...createWatchEncoder({ afterRevision: 0n, conflate: false })(message(3n, { changes }))];
    const bytesOf = (parts: WatchAgentsResponse[]) => parts.map((part) => encoded(WatchAgentsResponseSchema, part));
    const first = send();
    const bytes = bytesOf(first);
    // A second encoding would read this value.
    for (const { agent } of first.flatMap((part) => part.changes)) Object.assign(agent ?? {}, { agentId: "another" });
    expect(bytesOf(send())).toEqual(bytes);
  });

  it("report a deletion with the agent right before it, and no exhaustion after it", () => {
    const encode = createWatchEncoder({ afterRevision: 1n, conflate: false });
    const deletion = transition(8n, { fromStatus: "exhausted", toStatus: null, toClaw: null, cause: "deleted" });
    const [part] = [...encode(message(8n, { changes: [{ type: "left", transition: deletion, conflated: 0 }] }))];
    const [change] = part?.changes ?? [];
    expect(change?.agent).toMatchObject({ status: 4, exhaustReason: 2, revision: 7n });
    expect(change?.transition).toMatchObject({ fromStatus: 4, toStatus: 0, toClawIdentifier: "" });
    expect(change?.transition?.exhaustion).toBeUndefined();
  });
});
