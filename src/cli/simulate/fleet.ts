import type { AgentView, ChangeView, TransitionView } from "../../client/views.ts";
import type { WatchEvent } from "../../client/watch-agents.ts";
import { AGENT_STATUSES, type AgentStatus } from "../../domain/agent.ts";

/** How many agents are in each status. */
export type Tally = Readonly<Record<AgentStatus, number>>;

/** What happened since the demo began. */
export interface Totals {
  readonly transitions: number;
  /** Exhaustions that the server ended when their time was over. */
  readonly recovered: number;
  /** Agents that went offline because their leases ended. */
  readonly lost: number;
  /** Agents that came back from offline. */
  readonly returned: number;
}

/** As many transitions as a large terminal shows. */
const NEWEST_KEPT = 60;

/** The demo's fleet as a watch tells it. */
export class Fleet {
  readonly #agents = new Map<string, AgentView>();
  /** The newest first. */
  #newest: readonly TransitionView[] = [];
  #totals: Totals = { transitions: 0, recovered: 0, lost: 0, returned: 0 };

  get agents(): readonly AgentView[] {
    return [...this.#agents.values()];
  }

  get newest(): readonly TransitionView[] {
    return this.#newest;
  }

  get totals(): Totals {
    return this.#totals;
  }

  /** Takes in what the watch tells. @returns the transitions that are new, in their order */
  apply(event: WatchEvent): readonly TransitionView[] {
    switch (event.kind) {
      case "snapshot":
        this.#agents.clear();
        for (const agent of event.agents) this.#agents.set(agent.agentId, agent);
        return [];
      case "changes":
        for (const change of event.changes) this.#change(change);
        return event.changes.map(({ transition }) => transition);
      default:
        return [];
    }
  }

  /** All agents, or those of one claw. */
  tally(clawIdentifier?: string): Tally {
    const tally: Record<AgentStatus, number> = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 0 };
    for (const agent of this.#agents.values()) {
      if (agent.status === "unknown") continue;
      if (clawIdentifier === undefined || agent.clawIdentifier === clawIdentifier) tally[agent.status] += 1;
    }
    return tally;
  }

  #change({ passes, agent, transition }: ChangeView): void {
    if (passes && transition.cause !== "deleted") this.#agents.set(agent.agentId, agent);
    else this.#agents.delete(agent.agentId);
    this.#newest = [transition, ...this.#newest].slice(0, NEWEST_KEPT);
    const { transitions, recovered, lost, returned } = this.#totals;
    this.#totals = {
      transitions: transitions + 1,
      recovered: recovered + (transition.cause === "recovery" ? 1 : 0),
      lost: lost + (transition.cause === "lease_expired" ? 1 : 0),
      returned: returned + (transition.from === "offline" && transition.to !== "offline" ? 1 : 0),
    };
  }
}

/** How many agents a tally counts. */
export function sizeOf(tally: Tally): number {
  return AGENT_STATUSES.reduce((sum, status) => sum + tally[status], 0);
}
