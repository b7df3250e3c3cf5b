// One claw of the demo, a process of its own so that killing it is a kill: started by fork, told by messages what it is.
import { HeartbeatStream } from "../../client/heartbeat-stream.ts";
import { createServiceClients } from "../../client/transport.ts";
import type { BeatView } from "../../client/views.ts";
import { AgentScript } from "./agent-script.ts";
import { type ClawNews, type ClawOrder, readClawOrder } from "./claw-messages.ts";
import { createRandom, seedFor } from "./random.ts";

const TICK_MS = 50;
/** How long goodbyes may take. */
const GOODBYE_MS = 2_000;

/** A claw at work. Ends by `stop`, which says goodbye. */
function startClaw(order: ClawOrder & { readonly kind: "start" }): { stop(): Promise<void> } {
  const { address, clawIdentifier, instanceId, agentIds, seed, speed, emptyAccount } = order;
  const clients = createServiceClients({ address });
  const scripts = new Map(
    agentIds.map((agentId) => {
      const random = createRandom(seedFor(seed, agentId));
      return [agentId, new AgentScript({ random, speed, emptyAccount: agentId === emptyAccount })];
    }),
  );

  const silent = new Set(agentIds);
  function onBeat({ agentId, status, exhaustion, refusal }: BeatView): void {
    if (refusal !== undefined) tell({ kind: "refused", agentId, reason: refusal.reason ?? "UNKNOWN" });
    if (silent.delete(agentId) && silent.size === 0) tell({ kind: "beating" });
    if (status === undefined || status === "unknown") return;
    scripts.get(agentId)?.told(status, exhaustion?.reason, performance.now());
  }

  const stream = new HeartbeatStream({
    clients,
    clawIdentifier,
    instanceId,
    onBeat,
    onConnection: (connection) =>
      tell(
        connection.state === "connected"
          ? { kind: "connected" }
          : { kind: "waiting", reason: connection.error?.message ?? "the service asked for a new stream" },
      ),
  });
  stream.done.catch((error: unknown) => tell({ kind: "failed", reason: String(error) }));
  for (const agentId of agentIds) stream.add(agentId);

  const ticking = setInterval(() => {
    for (const [agentId, script] of scripts) {
      const report = script.tick(performance.now());
      if (report !== undefined) stream.report(agentId, report);
    }
  }, TICK_MS);

  return {
    async stop() {
      clearInterval(ticking);
      await stream.close({ goodbyeWithinMs: GOODBYE_MS });
      clients.close();
    },
  };
}

function tell(news: ClawNews): void {
  if (process.connected) process.send?.(news);
}

let claw: { stop(): Promise<void> } | undefined;
process.on("message", (message) => {
  const order = readClawOrder(message);
  if (order?.kind === "start") claw ??= startClaw(order);
  if (order?.kind === "stop") void (claw?.stop() ?? Promise.resolve()).then(() => process.exit(0));
});
// Ctrl-C reaches the whole group of processes; when a claw ends is for the demo to say.
process.on("SIGINT", () => undefined);
// The demo is gone without a word, so this claw goes likewise: no process survives its owner.
process.on("disconnect", () => process.exit(1));
