import { type Micros, plusMs } from "../../common/contract/time.ts";
import type { AgentCondition, Exhaustion, Hold } from "../../src/domain/agent.ts";
import type { StatusChange } from "../../src/domain/status-machine.ts";

/** An agent that has just been created, without a history. */
export const NEW_AGENT: AgentCondition = {
  status: "idle",
  exhaustion: null,
  backoff: { steps: 0, lastAt: null },
  hold: null,
  lapsesTo: null,
};

/** The effect of a change in the storage: the agent after its commit at `now` under `revision`. */
export function applyChange(
  agent: AgentCondition,
  change: StatusChange,
  at: { readonly now: Micros; readonly revision: bigint },
): AgentCondition {
  const exhaustion = exhaustionOf(agent, change, at.now);
  const steps = change.exhaustion.kind === "set" ? change.exhaustion.backoffSteps : agent.backoff.steps;
  const lastAt = change.exhaustion.kind === "keep" ? agent.backoff.lastAt : at.now;
  return {
    status: change.status,
    exhaustion,
    backoff: { steps: change.forgetBackoff ? 0 : steps, lastAt },
    hold: holdOf(agent, change, exhaustion, at),
    lapsesTo: change.hold.kind === "set" ? (change.hold.lapsesTo ?? null) : null,
  };
}

function exhaustionOf(agent: AgentCondition, change: StatusChange, now: Micros): Exhaustion | null {
  switch (change.exhaustion.kind) {
    case "keep":
      return agent.exhaustion;
    case "clear":
      return null;
    case "set": {
      const { reason, recovery, continues } = change.exhaustion;
      const exhaustedAt = continues && agent.exhaustion !== null ? agent.exhaustion.exhaustedAt : now;
      return { reason, exhaustedAt, recoveryAt: "at" in recovery ? recovery.at : plusMs(now, recovery.afterMs) };
    }
  }
}

function holdOf(
  agent: AgentCondition,
  change: StatusChange,
  exhaustion: Exhaustion | null,
  { now, revision }: { readonly now: Micros; readonly revision: bigint },
): Hold | null {
  switch (change.hold.kind) {
    case "keep":
      return agent.hold;
    case "clear":
      return null;
    case "set": {
      const { forMs } = change.hold;
      if (forMs !== "until_recovery") return { revision, until: plusMs(now, forMs) };
      if (exhaustion === null) throw new Error("a hold until the recovery of an agent that is not exhausted");
      return { revision, until: exhaustion.recoveryAt };
    }
  }
}

/** The agent after its report confirmed a service's change. */
export function applyConfirmation(agent: AgentCondition): AgentCondition {
  return { ...agent, hold: null, lapsesTo: null };
}

/** The agent after a beat showed that it knows of a service's claim. */
export function applyKnowledge(agent: AgentCondition): AgentCondition {
  return { ...agent, lapsesTo: null };
}
