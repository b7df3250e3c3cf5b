import type { SessionStart } from "../../common/contract/enum-names.ts";
import type { Transition } from "../domain/agent.ts";
import type { WakeNotice } from "../domain/message-to-claw.ts";

/** The session that holds agents, as seen by the claims, the intake and other sessions. */
export interface AgentHolder {
  /** The claw that the stream names; its agents live there. Undefined: it names none. */
  readonly clawIdentifier: string | undefined;
  /** The claw process behind the stream (see `instanceKey`). Undefined: it names none. */
  readonly instance: string | undefined;
  /** Orders the streams of one process: the higher one wins. */
  readonly generation: bigint;
  /** The `instance_id` of a stream that takes wakes; undefined: it takes none. */
  readonly wakesFor: string | undefined;
  readonly closed: boolean;
  /** Another session of this replica took the agent. */
  onSuperseded(holder: HeldAgent): void;
  /** A service, the time or another replica changed one of the session's agents. */
  onTransition(transition: Transition): void;
  /** A wake of an agent that the session holds changed, by the transition of this revision. */
  onWake(holder: HeldAgent, wakeId: string, revision: bigint): void;
  /** Sends the state of a wake. */
  notifyOfWake(notice: WakeNotice): void;
}

/** One agent of one session. */
export interface HeldAgent {
  readonly session: AgentHolder;
  readonly agentId: string;
  /**
   * - `new`: not claimed yet;
   * - `held`: under `epoch`;
   * - `superseded`: another session took it. This session gets it back only when no session holds it.
   */
  state: "new" | "held" | "superseded";
  /** Why the stream beats for it; undefined: the stream has not said. */
  start: SessionStart | undefined;
  /** The agent's row and the fencing token; 0 before the claim. */
  id: bigint;
  epoch: bigint;
  /** The epoch under which the session lost the agent without learning of the session that took it; else undefined. */
  heldUnder: bigint | undefined;
  /** The newest revision of the agent that was sent to the claw. */
  sentRevision: bigint;
  /** Whether the next result carries the server's view of the agent: the claw has not received one since the claim. */
  needsSnapshot: boolean;
}
