import { CallError, createServiceClients } from "harborforge-agents-client";
import { type ClawMessageView, HeartbeatStream } from "harborforge-agents-client/internal";
import { EXIT_FAILED, exitCodeOf } from "../cli/exit-codes.ts";
import { AgentScript } from "./agent-script.ts";
import type { ClawNews, ClawOrder } from "./claw-messages.ts";
import { createRandom, seedFor } from "./random.ts";

const TICK_MS = 50;
/** How long goodbyes may take: so much, and more where there are many. */
const GOODBYE_MS = 2_000;
const GOODBYE_MS_PER_AGENT = 5;

/** The most that a claw's goodbyes take. */
export function goodbyePatienceMs(agents: number): number {
  return GOODBYE_MS + GOODBYE_MS_PER_AGENT * agents;
}

/** A claw at work. */
export interface ClawAtWork {
  /** Says goodbye for its agents, and ends. */
  stop(): Promise<void>;
  /** Breaks off, as a power cut would. */
  kill(): Promise<void>;
}

/** Lets a claw's agents beat and do what their scripts say. */
export function startClaw(order: ClawOrder & { readonly kind: "start" }, tell: (news: ClawNews) => void): ClawAtWork {
  const { target, clawIdentifier, instanceId, agentIds, seed, speed, rateLimitShare, emptyAccounts } = order;
  const clients = createServiceClients(target);
  const dry = new Set(emptyAccounts);
  const scripts = new Map(
    agentIds.map((agentId) => {
      const random = createRandom(seedFor(seed, agentId));
      return [agentId, new AgentScript({ random, speed, rateLimitShare, emptyAccount: dry.has(agentId) })];
    }),
  );

  const silent = new Set(agentIds);
  function onMessage(message: ClawMessageView): void {
    if (message.kind !== "result") return;
    const { agentId, status, exhaustion, refusal } = message;
    if (refusal !== undefined) tell({ kind: "refused", agentId, reason: refusal.reason ?? "UNKNOWN" });
    if (silent.delete(agentId) && silent.size === 0) tell({ kind: "beating" });
    if (status === undefined || status === "unknown") return;
    scripts.get(agentId)?.told(status, exhaustion?.reason, performance.now());
  }

  const stream = new HeartbeatStream({
    clients,
    clawIdentifier,
    instanceId,
    onMessage,
    onConnection: (connection) =>
      tell(
        connection.state === "connected"
          ? { kind: "connected" }
          : { kind: "waiting", reason: connection.error?.message ?? "the service asked for a new stream" },
      ),
  });
  stream.done.catch((error: unknown) => {
    const known = error instanceof CallError;
    tell({
      kind: "failed",
      reason: known ? error.message : String(error),
      exitCode: known ? exitCodeOf(error.code) : EXIT_FAILED,
    });
  });
  for (const agentId of agentIds) stream.add(agentId);

  const ticking = setInterval(() => {
    for (const [agentId, script] of scripts) {
      const report = script.tick(performance.now());
      if (report !== undefined) stream.report(agentId, report);
    }
  }, TICK_MS);

  const end = async (goodbyeWithinMs: number): Promise<void> => {
    clearInterval(ticking);
    await stream.close({ goodbyeWithinMs });
    clients.close();
  };
  return { stop: () => end(goodbyePatienceMs(agentIds.length)), kill: () => end(0) };
}
