import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { ParsedBeat } from "../../src/domain/heartbeat.ts";
import type { ClaimResult } from "../../src/liveness/claims.ts";
import { HeartbeatMetrics } from "../../src/liveness/heartbeat-metrics.ts";
import { Registry } from "../../src/liveness/registry.ts";
import { StreamSession } from "../../src/liveness/stream-session.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";

/** A session whose claims wait until the test answers them. */
function openSession() {
  const claimed: string[] = [];
  const answers: ((result: ClaimResult | undefined) => void)[] = [];
  const session = new StreamSession(
    {
      registry: new Registry(0),
      intake: { accept: () => undefined, supersede: () => undefined },
      claims: {
        claim: ({ agentId }) => {
          claimed.push(agentId);
          return new Promise((resolve) => answers.push(resolve));
        },
      },
      metrics: new HeartbeatMetrics(new Metrics()),
      leaseMs: () => 30_000,
      firstIntervalMs: () => 10_000,
      isTrackedElsewhere: () => false,
      onFirstClaim: () => undefined,
      release: () => undefined,
      scheduleNotification: () => undefined,
      onOpenWake: () => undefined,
      sendWake: () => undefined,
      onClosed: () => undefined,
      onClawHeard: () => undefined,
    },
    { clawIdentifier: "claw-1", instanceId: "process-1", generation: 1n },
    { onOutput: () => undefined, onCapacity: () => undefined },
  );
  const fail = async (): Promise<void> => {
    answers.shift()?.(undefined);
    await turn();
  };
  return { session, claimed, fail };
}

function beatOf(agentId: string): ParsedBeat {
  return { agentId, start: "first", leaving: false, beat: { report: "idle", knownRevision: undefined } };
}

describe("a session that fails", () => {
  test("claims no agent for a message after its finish, whichever comes first", async () => {
    for (const isFinishedFirst of [true, false]) {
      const { session, claimed, fail } = openSession();
      session.submit(1n, [beatOf("agent-1")]);
      if (isFinishedFirst) session.finish();
      await fail();
      if (!isFinishedFirst) session.finish();
      expect(session.submit(2n, [beatOf("agent-2")])).toBe(true);
      expect(claimed).toEqual(["agent-1"]);
      expect(() => session.take()).toThrow(expect.objectContaining({ reason: "DATABASE_UNAVAILABLE" }));
    }
  });

  test("takes messages until its transport takes the error", async () => {
    const { session, claimed, fail } = openSession();
    session.submit(1n, [beatOf("agent-1")]);
    await fail();
    session.submit(2n, [beatOf("agent-2")]);
    expect(claimed).toEqual(["agent-1", "agent-2"]);
    expect(() => session.take()).toThrow(expect.objectContaining({ reason: "DATABASE_UNAVAILABLE" }));
  });
});

describe("a session that finishes", () => {
  test("claims no agent for a later message, and closes when all earlier ones are settled and sent", async () => {
    const { session, claimed } = openSession();
    session.submit(1n, []);
    session.finish();
    session.submit(2n, [beatOf("agent-1")]);
    expect(claimed).toEqual([]);
    expect(session.take()).toMatchObject({ acknowledgedSequence: 1n, messages: [] });
    expect(session.over).toBe(false);
    expect(session.take()).toBeUndefined();
    expect(session.over).toBe(true);
  });
});
