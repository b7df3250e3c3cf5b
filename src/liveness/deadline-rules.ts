import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import type { DeadlineKind } from "../domain/deadline.ts";
import { judgeClaimLapse } from "../domain/status-machine.ts";
import { type AgentUpdate, KEEP_LEASE } from "../storage/agent-change.ts";

/** What follows from a stored deadline of one kind. Pure. */
export interface DeadlineRule {
  /** The deadline of the agent as it is now; null: it has none of this kind any more. */
  dueAt(agent: Agent): Micros | null;
  /** The transition after the deadline; undefined: none. */
  write(agent: Agent, now: Micros): Omit<AgentUpdate, "deadline"> | undefined;
}

/** A kind needs its rows in the view `agent_deadlines`, and its rule here. */
export const DEADLINE_RULES: Readonly<Record<DeadlineKind, DeadlineRule>> = {
  claim: {
    dueAt: ({ hold, lapsesTo }) => (hold === null || lapsesTo === null ? null : hold.until),
    write(agent, now) {
      const status = judgeClaimLapse(agent, now);
      return status && { kind: "update", agent, cause: status.cause, status, lease: KEEP_LEASE };
    },
  },
};
