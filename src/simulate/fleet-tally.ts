import type { AgentView, ChangeView, TransitionView, WatchEvent } from "harborforge-agents-client";
import { AGENT_STATUSES, type AgentStatus } from "../../common/contract/enum-names.ts";

/** The number of agents in each status. */
export type Tally = Readonly<Record<AgentStatus, number>>;

/** The transitions since the watch began. */
export interface Totals {
  readonly transitions: number;
  /** The number of transitions of each cause. */
  readonly causes: ReadonlyMap<TransitionView["cause"], number>;
  /** Exhaustions that the server ended at their recovery time. */
  readonly recovered: number;
  /** Agents that went offline because their leases expired. */
  readonly lost: number;
  /** Agents that came back from offline. */
  readonly returned: number;
}

/** The number of transitions that a large terminal can show. */
const NEWEST_KEPT = 60;
const EMPTY_TALLY: Tally = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 0 };

/**
 * The agents of a simulation as a watch reports them. Counts are updated with each change, because a fleet may be
 * large.
 */
export class FleetTally {
  readonly #isMember: (agentId: string) => boolean;
  readonly #agents = new Map<string, AgentView>();
  readonly #tallies = new Map<string, Record<AgentStatus, number>>();
  readonly #all: Record<AgentStatus, number> = { ...EMPTY_TALLY };
  readonly #causes = new Map<TransitionView["cause"], number>();
  /** The newest first. */
  #newest: readonly TransitionView[] = [];
  #totals: Omit<Totals, "causes"> = { transitions: 0, recovered: 0, lost: 0, returned: 0 };

  /** @param members the agents to count, because a claw may have others of an earlier run; default: all */
  constructor(members?: ReadonlySet<string>) {
    this.#isMember = members === undefined ? () => true : (agentId) => members.has(agentId);
  }

  get agents(): readonly AgentView[] {
    return [...this.#agents.values()];
  }

  get(agentId: string): AgentView | undefined {
    return this.#agents.get(agentId);
  }

  get newest(): readonly TransitionView[] {
    return this.#newest;
  }

  get totals(): Totals {
    return { ...this.#totals, causes: this.#causes };
  }

  /**
   * Applies an event of the watch.
   *
   * @returns the new transitions, in order
   */
  apply(event: WatchEvent): readonly TransitionView[] {
    switch (event.kind) {
      case "snapshot":
        for (const agentId of [...this.#agents.keys()]) this.#forget(agentId);
        for (const agent of event.agents) if (this.#isMember(agent.agentId)) this.#set(agent);
        return [];
      case "changes": {
        const changes = event.changes.filter(({ agent }) => this.#isMember(agent.agentId));
        for (const change of changes) this.#change(change);
        return changes.map(({ transition }) => transition);
      }
      default:
        return [];
    }
  }

  /** The counts of all agents, or of one claw. */
  tally(clawIdentifier?: string): Tally {
    return clawIdentifier === undefined ? this.#all : (this.#tallies.get(clawIdentifier) ?? EMPTY_TALLY);
  }

  #set(agent: AgentView): void {
    this.#forget(agent.agentId);
    this.#agents.set(agent.agentId, agent);
    this.#count(agent, 1);
  }

  #forget(agentId: string): void {
    const agent = this.#agents.get(agentId);
    if (agent === undefined) return;
    this.#agents.delete(agentId);
    this.#count(agent, -1);
  }

  #count({ status, clawIdentifier }: AgentView, by: 1 | -1): void {
    if (status === "unknown") return;
    let tally = this.#tallies.get(clawIdentifier);
    if (tally === undefined) {
      tally = { ...EMPTY_TALLY };
      this.#tallies.set(clawIdentifier, tally);
    }
    tally[status] += by;
    this.#all[status] += by;
  }

  #change({ passes, agent, transition }: ChangeView): void {
    if (passes && transition.cause !== "deleted") this.#set(agent);
    else this.#forget(agent.agentId);
    this.#newest = [transition, ...this.#newest.slice(0, NEWEST_KEPT - 1)];
    const { cause, from, to } = transition;
    const { transitions, recovered, lost, returned } = this.#totals;
    this.#causes.set(cause, (this.#causes.get(cause) ?? 0) + 1);
    this.#totals = {
      transitions: transitions + 1,
      recovered: recovered + (cause === "recovery" ? 1 : 0),
      lost: lost + (cause === "lease_expired" ? 1 : 0),
      returned: returned + (from === "offline" && to !== undefined && to !== "offline" ? 1 : 0),
    };
  }
}

/** The number of agents in a tally. */
export function sizeOf(tally: Tally): number {
  return AGENT_STATUSES.reduce((sum, status) => sum + tally[status], 0);
}
