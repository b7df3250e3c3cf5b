import { CallError, createServiceClients } from "harborforge-agents-client";
import { type ClawMessageView, HeartbeatStream } from "harborforge-agents-client/internal";
import { EXIT_FAILED, exitCodeOf } from "../cli/exit-codes.ts";
import { AgentScript } from "./agent-script.ts";
import type { ClawCommand, ClawEvent } from "./claw-messages.ts";
import { SIGN_EVERY_MS } from "./own-outages.ts";
import { createRandom, seedFor } from "./seeded-random.ts";

const TICK_MS = 50;
/** How long goodbyes may take, in milliseconds: a fixed part, and a part for each agent. */
const GOODBYE_MS = 2_000;
const GOODBYE_MS_PER_AGENT = 5;

/** The timeout of a claw's goodbyes, in milliseconds. */
export function goodbyeTimeoutMs(agents: number): number {
  return GOODBYE_MS + GOODBYE_MS_PER_AGENT * agents;
}

/** A running claw. */
export interface ClawAtWork {
  /** Sends goodbyes for its agents, and stops. */
  stop(): Promise<void>;
  /** Stops without a goodbye, like a power cut. */
  kill(): Promise<void>;
}

/** Starts a claw: its agents send heartbeats and follow their scripts. */
export function startClaw(
  order: ClawCommand & { readonly kind: "start" },
  emit: (event: ClawEvent) => void,
): ClawAtWork {
  const { target, clawIdentifier, instanceId, agentIds, seed, speed, rateLimitShare, emptyAccounts } = order;
  const clients = createServiceClients(target);
  const emptyIds = new Set(emptyAccounts);
  const scripts = new Map(
    agentIds.map((agentId) => {
      const random = createRandom(seedFor(seed, agentId));
      return [agentId, new AgentScript({ random, speed, rateLimitShare, emptyAccount: emptyIds.has(agentId) })];
    }),
  );

  const silent = new Set(agentIds);
  function onMessage(message: ClawMessageView): void {
    if (message.kind !== "result") return;
    const { agentId, status, exhaustion, refusal } = message;
    if (refusal !== undefined) emit({ kind: "refused", agentId, reason: refusal.reason ?? "UNKNOWN" });
    if (silent.delete(agentId) && silent.size === 0) emit({ kind: "beating" });
    if (status === undefined || status === "unknown") return;
    scripts.get(agentId)?.observe(status, exhaustion?.reason, performance.now());
  }

  const stream = new HeartbeatStream({
    clients,
    clawIdentifier,
    instanceId,
    onMessage,
    onConnection: (connection) =>
      emit(
        connection.state === "connected"
          ? { kind: "connected" }
          : { kind: "waiting", reason: connection.error?.message ?? "the service asked for a new stream" },
      ),
  });
  stream.done.catch((error: unknown) => {
    const known = error instanceof CallError;
    emit({
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

  const living = setInterval(() => emit({ kind: "alive" }), SIGN_EVERY_MS);

  const end = async (goodbyeWithinMs: number): Promise<void> => {
    clearInterval(ticking);
    clearInterval(living);
    await stream.close({ goodbyeWithinMs });
    clients.close();
  };
  return { stop: () => end(goodbyeTimeoutMs(agentIds.length)), kill: () => end(0) };
}
