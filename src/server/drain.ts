import { Refusal } from "../domain/errors.ts";
import type { Liveness } from "../liveness/liveness.ts";
import type { Pipeline } from "../rpc/pipeline/pipeline.ts";
import type { Health } from "../rpc/services/health.ts";
import type { Listener } from "../rpc/sockets/listener.ts";
import type { FleetWatches } from "../watch/fleet-watches.ts";
import type { Watching } from "../watch/watching.ts";

/** How long streams have to reconnect elsewhere, as a share of the grace period. */
const RECONNECT_SHARE = 0.5;
/** How long the streams that are left have to receive their last acknowledgements. */
const FINISH_MS = 1_000;
const POLL_MS = 20;

/** Why health reports a replica that stops as unavailable. */
const DRAINING = "draining";

/** The parts of a replica that take part in a drain. */
export interface DrainedParts {
  readonly health: Health;
  readonly liveness: Liveness;
  readonly watching: Watching;
  readonly fleetWatches: Pick<FleetWatches, "drain">;
  readonly pipeline: Pipeline;
  readonly listeners: { readonly grpc: Listener; readonly connect: Listener };
}

/** The end of a replica's service. */
export class Drain {
  #isStopping = false;

  /** The refusal of new calls while the replica stops. */
  readonly admission = (): Refusal | undefined => (this.#isStopping ? drainingRefusal(1) : undefined);

  /**
   * Health reports the replica as stopping, and nothing else changes: load balancers choose other replicas before this one rejects
   * their calls.
   */
  announce({ health }: Pick<DrainedParts, "health">): void {
    health.suspend(DRAINING);
  }

  /**
   * Drains a replica: health reports it, streams reconnect elsewhere and calls finish, both within `graceMs`. Heartbeats that
   * arrived are written and acknowledged, or neither. Then the streams that are left end with DRAINING. May be called again.
   */
  async run(
    { health, liveness, watching, fleetWatches, pipeline, listeners }: DrainedParts,
    graceMs: number,
  ): Promise<void> {
    if (!this.#isStopping) {
      this.#isStopping = true;
      health.suspend(DRAINING);
      liveness.drain(graceMs * RECONNECT_SHARE);
      watching.drain();
      fleetWatches.drain();
      for (const listener of [listeners.grpc, listeners.connect]) void listener.drain();
    }
    await callsToEnd(pipeline, graceMs);
    await liveness.finish(Math.min(graceMs, FINISH_MS));
    pipeline.endStreams(drainingRefusal(pipeline.openStreams.size));
    await callsToEnd(pipeline, Math.min(graceMs, 1_000));
  }
}

/** @param others how many callers are refused together: the more there are, the longer they spread their retries */
function drainingRefusal(others: number): Refusal {
  const retryAfterMs = Math.ceil(100 + Math.random() * Math.min(5_000, others * 10));
  return new Refusal("DRAINING", "This replica is stopping. Use another replica.", { retryAfterMs });
}

async function callsToEnd(pipeline: Pipeline, withinMs: number): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (pipeline.callsInProgress > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
