import type { Agent } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import type { Beat } from "../domain/status-machine.ts";
import type { HeldAgent } from "./held-agent.ts";

/** What became of a beat. */
export type BeatOutcome =
  | {
      readonly kind: "applied";
      /** The agent afterwards, where that is more than a renewed lease. */
      readonly agent: Agent | undefined;
    }
  | { readonly kind: "refused"; readonly refusal: Refusal; readonly agent: Agent | undefined }
  /** It could not be applied, and whether it ever will is open: it is not acknowledged. */
  | { readonly kind: "open"; readonly refusal: Refusal };

/** A beat on its way. */
export interface PendingBeat {
  readonly agentId: string;
  readonly beat: Beat | "leaving";
  readonly leaseMs: number;
  /** The session that brought it; undefined for a unary heartbeat. */
  readonly holder: HeldAgent | undefined;
  /** For a unary heartbeat: the claw that it says it comes from. */
  readonly clawIdentifier: string | undefined;
  /** The session's fencing token when it was passed on; 0 for a unary heartbeat. */
  epoch: bigint;
  /** It renews the lease, but its report was judged older than what a service set. */
  heldOff: boolean;
  /** It was sent back to be claimed for once already. */
  reclaimed: boolean;
  /** Of a unary heartbeat: from then on it must not take effect any more, by `performance.now()`. */
  readonly deadline: number | undefined;
  /** Its caller waits no longer, so it must not take effect any more. */
  readonly abandoned: boolean;
  settle(outcome: BeatOutcome): void;
}

export const RENEWED: BeatOutcome = { kind: "applied", agent: undefined };
