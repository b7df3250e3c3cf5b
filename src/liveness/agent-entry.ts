import type { Micros } from "../contract/time.ts";
import type { Agent, Transition } from "../domain/agent.ts";
import type { HeldAgent } from "./held-agent.ts";
import type { Timed } from "./lease-wheel.ts";
import type { PendingBeat } from "./pending-beat.ts";

/** Nearly every entry has none waiting, nearly always: they share this one, which nothing is ever put into. */
const NONE: PendingBeat[] = [];

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
  /** The lease has ended as far as is known, and must not yet: `dueAt` is when to ask again. */
  heldBack = false;
  tick: number | null = null;
  /** Renewals that wait for the next flush, and what the last of them was judged by. */
  judgedBy: Agent | undefined;
  renewals: PendingBeat[] = NONE;
  /** Whether something of it is on its way to the database; what comes meanwhile waits. */
  underway = false;
  waiting: PendingBeat[] = [];
  /** The newest transition that was heard of meanwhile: perhaps what is on its way itself made it. */
  news: Transition | undefined;

  constructor(id: bigint, agentId: string) {
    this.id = id;
    this.agentId = agentId;
  }

  /** Whether beats of it are still to be settled. */
  get busy(): boolean {
    return this.underway || this.renewals.length > 0 || this.waiting.length > 0;
  }

  /** Takes note of a transition, whoever made it; the session is told of what it does not know yet. */
  hear(transition: Transition): void {
    if (this.underway) {
      this.news = transition;
      return;
    }
    if (this.agent !== undefined && this.agent.revision < transition.revision) this.agent = undefined;
    const holder = this.holder;
    if (holder === undefined || holder.state !== "held" || holder.told >= transition.revision) return;
    holder.told = transition.revision;
    holder.session.changed(transition);
  }

  /** What waits for the next flush waits for it no longer. */
  takeRenewals(): PendingBeat[] {
    const { renewals } = this;
    this.renewals = NONE;
    return renewals;
  }

  /** Nothing is on its way any more. */
  settled(): void {
    this.underway = false;
    const { news } = this;
    this.news = undefined;
    if (news !== undefined) this.hear(news);
  }

  /** Takes what the database said. False: something newer is known. */
  learn(agent: Agent): boolean {
    const known = this.agent;
    if (
      known !== undefined &&
      (agent.epoch < known.epoch || (agent.epoch === known.epoch && agent.revision < known.revision))
    ) {
      return false;
    }
    this.agent = agent;
    return true;
  }
}
