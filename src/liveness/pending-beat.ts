import type { Agent } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import type { BeatResult } from "../domain/message-to-claw.ts";
import type { Beat } from "../domain/status-machine.ts";
import type { WakeReplyResult } from "../domain/wake.ts";
import type { HeldAgent } from "./held-agent.ts";

/** A beat that was applied or rejected. */
export type SettledOutcome =
  | {
      readonly kind: "applied";
      /** The agent afterwards. Undefined: the beat only renewed the lease, or the claw knows the agent already. */
      readonly agent: Agent | undefined;
      /** Whether the beat made a transition. Absent: it only renewed the lease. */
      readonly changed?: boolean;
      readonly replied?: Replied | undefined;
    }
  | {
      readonly kind: "refused";
      readonly refusal: Refusal;
      readonly agent: Agent | undefined;
      /** The report was outdated, but the replies of the beat count. */
      readonly replied?: Replied | undefined;
    };

/** What the replies of a beat to wakes did. */
export interface Replied {
  readonly results: readonly WakeReplyResult[];
  /** The revision of the transition that they made; undefined: none. */
  readonly revision: bigint | undefined;
}

export type BeatOutcome =
  | SettledOutcome
  /** The beat could not be applied, and may or may not be applied later. It is not acknowledged. */
  | { readonly kind: "open"; readonly refusal: Refusal };

/** A beat that is not settled yet. */
export interface PendingBeat {
  readonly agentId: string;
  readonly beat: Beat | "leaving";
  readonly leaseMs: number;
  /** The agent, as the session that received the beat holds it; undefined for a unary heartbeat. */
  readonly holder: HeldAgent | undefined;
  /** The claw that a unary heartbeat names. */
  readonly clawIdentifier: string | undefined;
  /** The session's fencing token when the session passed the beat on; 0 for a unary heartbeat. */
  epoch: bigint;
  /** The beat renews the lease, but its report is older than the status that a service set. */
  heldOff: boolean;
  /** The session has already claimed the agent again for this beat, which it does once. */
  reclaimed: boolean;
  /** When a unary heartbeat must not be applied any more, by `performance.now()`. */
  readonly deadline: number | undefined;
  /** The caller does not wait any more, so the beat must not be applied. */
  readonly abandoned: boolean;
  settle(outcome: BeatOutcome): void;
}

export const RENEWED: BeatOutcome = { kind: "applied", agent: undefined };

/**
 * The result of a settled beat, as its claw reads it. It shows the agent only where the beat applied, or where its report
 * was outdated: otherwise the agent may belong to another claw.
 *
 * @param sequence the message that carried the beat; 0 for a unary heartbeat
 * @param beatIndex the beat's index in its message, from 0
 */
export function beatResult(agentId: string, outcome: SettledOutcome, sequence: bigint, beatIndex: number): BeatResult {
  const refusal = outcome.kind === "refused" ? outcome.refusal : null;
  const view = refusal === null || refusal.reason === "REPORT_OUTDATED" ? outcome.agent : undefined;
  return {
    kind: "result",
    agentId,
    status: view?.status ?? null,
    exhaustion: view?.exhaustion ?? null,
    revision: view?.revision ?? null,
    refusal,
    sequence,
    beatIndex,
    ...(outcome.replied === undefined ? {} : { wakeResults: outcome.replied.results }),
  };
}
