import type { SessionStart } from "../contract/words.ts";
import type { Transition } from "../domain/agent.ts";

/** A heartbeat stream, as those see it who deal with its agents. */
export interface AgentHolder {
  /** The claw that it names; its agents live there. */
  readonly clawIdentifier: string | undefined;
  /** The claw process behind it (see `instanceKey`), and which of that process's streams it is. */
  readonly instance: string | undefined;
  readonly generation: bigint;
  readonly closed: boolean;
  /** Another session of this replica took the agent. */
  superseded(holder: HeldAgent): void;
  /** Somebody else (a service, the time, another replica) changed one of its agents. */
  changed(transition: Transition): void;
}

/** What one session knows of one of its agents. */
export interface HeldAgent {
  readonly session: AgentHolder;
  readonly agentId: string;
  /**
   * - `new`: not claimed yet;
   * - `held`: under `epoch`;
   * - `superseded`: another session took it; this one gets it back only when nobody holds it.
   */
  state: "new" | "held" | "superseded";
  /** Why the stream beats for it; undefined: it has not said. */
  start: SessionStart | undefined;
  /** The agent's own number and the fencing token, once it is claimed. */
  id: bigint;
  epoch: bigint;
  /** The epoch that the agent was lost under without news of another session that took it; undefined: there was news. */
  heldUnder: bigint | undefined;
  /** The newest revision of the agent that the stream was told of. */
  told: bigint;
  /** Whether the agent's first result, with the server's view of it, is still to be given. */
  introduce: boolean;
}
