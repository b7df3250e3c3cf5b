import type { Micros } from "../../common/contract/time.ts";
import type { Agent, Transition } from "../domain/agent.ts";
import type { HeldAgent } from "./held-agent.ts";
import type { Timed } from "./lease-wheel.ts";
import type { PendingBeat } from "./pending-beat.ts";

/** Shared by all entries without renewals, which nearly all are at any moment. Never modified. */
const NONE: PendingBeat[] = [];
const NO_TRANSITIONS: readonly Transition[] = [];

/** A wake that was queued without an offer does not concern the claw. One that is queued after its offer frees the agent. */
function isQueuedAnew({ wake, cause, fromStatus, toStatus }: Transition): boolean {
  return wake?.state === "queued" && cause === "wake" && fromStatus === toStatus;
}

/**
 * An agent that this replica serves: one of its sessions holds the agent, or the replica watches the agent's lease. Beats of
 * one agent are judged one after the other here, from streams and from unary calls.
 */
export class AgentEntry implements Timed {
  readonly id: bigint;
  readonly agentId: string;
  /** The agent's last known state. Undefined: it changed elsewhere, and has to be read. */
  agent: Agent | undefined;
  /** The session of this replica that holds it. */
  holder: HeldAgent | undefined;
  /** The end of its lease. */
  dueAt: Micros | null = null;
  /** The lease has ended as far as is known, and the database does not let it expire yet. `dueAt`: when to ask again. */
  heldBack = false;
  tick: number | null = null;
  /** The state that the last of `renewals` was judged by. */
  judgedBy: Agent | undefined;
  /** Beats that only renew the lease, and wait for the next batch. */
  renewals: PendingBeat[] = NONE;
  /** Whether a write of this agent is on its way to the database. Beats that arrive meanwhile wait. */
  underway = false;
  waiting: PendingBeat[] = [];
  /**
   * The newest transition that arrived during that write, and those of wakes. The write itself may have caused them.
   */
  #heldTransitions: readonly Transition[] = NO_TRANSITIONS;

  constructor(id: bigint, agentId: string) {
    this.id = id;
    this.agentId = agentId;
  }

  /** Whether it has beats that are not settled. */
  get busy(): boolean {
    return this.underway || this.renewals.length > 0 || this.waiting.length > 0;
  }

  /** Takes a transition from the log, of any replica. The session sends it to its claw, unless the claw knows it. */
  onTransition(transition: Transition): void {
    if (this.underway) {
      this.#heldTransitions = [...this.#heldTransitions.filter(({ wake }) => wake !== null), transition];
      return;
    }
    if (this.agent !== undefined && this.agent.revision < transition.revision) this.agent = undefined;
    const holder = this.holder;
    if (holder === undefined || holder.state !== "held") return;
    // Whatever the claw knows of the agent, it may not know of the wake.
    if (transition.wake !== null && !isQueuedAnew(transition))
      holder.session.onWake(holder, transition.wake.wakeId, transition.revision);
    if (holder.sentRevision >= transition.revision) return;
    holder.sentRevision = transition.revision;
    holder.session.onTransition(transition);
  }

  /** Takes the renewals away: they do not wait for the next batch any more. */
  takeRenewals(): PendingBeat[] {
    const { renewals } = this;
    this.renewals = NONE;
    return renewals;
  }

  /** The write that was on its way has ended. */
  settled(): void {
    this.underway = false;
    const held = this.#heldTransitions;
    if (held === NO_TRANSITIONS) return;
    this.#heldTransitions = NO_TRANSITIONS;
    for (const transition of held) this.onTransition(transition);
  }

  /** Takes the agent as the database has it. False: this replica knows a newer state. */
  update(agent: Agent): boolean {
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
