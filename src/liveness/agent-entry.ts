import type { Agent } from "../domain/agent.ts";
import type { Micros } from "../domain/time.ts";
import type { HeldAgent } from "./held-agent.ts";
import type { Timed } from "./lease-wheel.ts";
import type { PendingBeat } from "./pending-beat.ts";

/**
 * An agent that this replica has something to do with: a session of its own holds it, or it watches its lease. Beats of
 * one agent are judged one after the other here, whoever brings them.
 */
export class AgentEntry implements Timed {
  readonly id: bigint;
  readonly agentId: string;
  /** The agent as last heard of; undefined: somebody else changed it, so it must be read. */
  agent: Agent | undefined;
  /** The session of this replica that holds it. */
  holder: HeldAgent | undefined;
  /** The end of its lease. */
  dueAt: Micros | null = null;
  tick: number | null = null;
  /** Renewals that wait for the next flush. */
  renewals: PendingBeat[] = [];
  /** Whether something of it is on its way to the database; what comes meanwhile waits. */
  underway = false;
  waiting: PendingBeat[] = [];

  constructor(id: bigint, agentId: string) {
    this.id = id;
    this.agentId = agentId;
  }

  /** Takes what the database said, unless something newer is known. */
  learn(agent: Agent): void {
    const known = this.agent;
    if (
      known !== undefined &&
      (agent.epoch < known.epoch || (agent.epoch === known.epoch && agent.revision < known.revision))
    ) {
      return;
    }
    this.agent = agent;
  }
}
