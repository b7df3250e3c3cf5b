import type { SessionStart } from "../../common/contract/enum-names.ts";
import type { Agent } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { MAX_AGENTS_PER_STREAM } from "../domain/heartbeat.ts";
import type { OpenWake } from "../domain/wake.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import type { AgentEntry } from "./agent-entry.ts";
import type { BeatIntake } from "./beat-intake.ts";
import type { ClaimResult, Claims } from "./claims.ts";
import type { HeartbeatMetrics } from "./heartbeat-metrics.ts";
import type { AgentHolder, HeldAgent } from "./held-agent.ts";
import type { BeatOutcome } from "./pending-beat.ts";
import type { Registry } from "./registry.ts";
import { agentNotFound, sessionSuperseded, wrongClaw } from "./session-refusals.ts";
import type { StreamBeat } from "./stream-beat.ts";

/** What the holders of all sessions of a replica share. */
export interface HoldingContext {
  readonly registry: Registry;
  readonly intake: Pick<BeatIntake, "accept" | "supersede">;
  readonly claims: Pick<Claims, "claim">;
  readonly metrics: HeartbeatMetrics;
  /** Whether no session holds the agent, and another replica watches its lease. */
  isTrackedElsewhere(agent: Agent | undefined): boolean;
  /** Gives up these holds, in the database. */
  release(held: readonly HeldAgent[]): void;
  /** The session claimed an agent with an open wake. It is told, or the offer is withdrawn. */
  onOpenWake(holder: HeldAgent, open: OpenWake): void;
}

/** The session that the agents belong to. */
export interface HoldingSession extends AgentHolder {
  /** The session begins to claim an agent that it has never held. */
  onFirstClaim(): void;
  /** The session holds the agent under a new epoch. */
  onClaimed(agent: Agent): void;
  /** A claim cannot be made, and its beats cannot be settled. */
  onClaimFailed(refusal: Refusal): void;
}

/** The agents of one session: claims them, passes their beats to the intake, and releases them in the end. */
export class HeldAgents {
  readonly #session: HoldingSession;
  readonly #context: HoldingContext;
  readonly #holders = new Map<string, HeldAgent>();
  /** Beats of agents whose claims are under way, in the order they came. */
  readonly #claiming = new Map<string, StreamBeat[]>();

  constructor(session: HoldingSession, context: HoldingContext) {
    this.#session = session;
    this.#context = context;
  }

  /** Whether it has agents that this replica does not hold yet. */
  get isClaiming(): boolean {
    return this.#claiming.size > 0;
  }

  /** The agent of a beat, new to the session or not. Undefined: the session has as many agents as a stream may. */
  open(agentId: string, start: SessionStart | undefined): HeldAgent | undefined {
    const known = this.#holders.get(agentId);
    if (known !== undefined) return known;
    if (this.#holders.size >= MAX_AGENTS_PER_STREAM) return undefined;
    const holder: HeldAgent = {
      session: this.#session,
      agentId,
      state: "new",
      start,
      id: 0n,
      epoch: 0n,
      heldUnder: undefined,
      sentRevision: 0n,
      needsSnapshot: true,
    };
    this.#holders.set(agentId, holder);
    return holder;
  }

  /** Sends a beat on its way, by a claim first where the session does not hold the agent. */
  pass(beat: StreamBeat): void {
    const { holder } = beat;
    const claiming = this.#claiming.get(holder.agentId);
    if (claiming !== undefined) {
      claiming.push(beat);
      return;
    }
    const entry = holder.state === "held" ? this.#context.registry.get(holder.agentId) : undefined;
    if (entry !== undefined && entry.holder === holder) {
      if (!this.#context.isTrackedElsewhere(entry.agent)) {
        this.#accept(entry, beat);
        return;
      }
      // The agent was offline and came back by a unary heartbeat at another replica, which watches its lease. That replica
      // would not know that this one is isolated. So the session claims it again, unless another session holds it.
      holder.state = "superseded";
    }
    if (beat.claimsAnew) {
      // Only once: if the session loses the agent again, this beat does not claim it a second time.
      beat.claimsAnew = false;
      holder.state = "new";
      holder.start = "anew";
    }
    this.#claiming.set(holder.agentId, [beat]);
    // A superseded agent has another stream.
    if (holder.state === "new") this.#session.onFirstClaim();
    void this.#context.claims.claim(holder).then((result) => this.#onClaim(holder, result));
  }

  /**
   * A beat was rejected because its session does not hold the agent any more. The agent may only have been moved or
   * adopted, so the session claims it again if no session holds it. If the stream sends `session_start`, also no other
   * process may have held it since. Once for each beat. Returns whether it does so.
   */
  reclaim(beat: StreamBeat, outcome: BeatOutcome): boolean {
    const isLost = outcome.kind === "refused" && outcome.refusal.reason === "SESSION_SUPERSEDED";
    if (!isLost || beat.reclaimed) return false;
    beat.reclaimed = true;
    const { holder } = beat;
    // Unless the session claimed it again after it passed this beat on.
    if (holder.state === "held" && holder.epoch === beat.epoch) {
      holder.state = "superseded";
      // After a restore, the session that seems to have the agent may be an older one.
      holder.heldUnder = holder.epoch;
    }
    this.pass(beat);
    return true;
  }

  /** Another session took the agent, or it lives in another claw. False: the session did not hold it. */
  supersede(holder: HeldAgent | undefined): boolean {
    if (holder?.state !== "held") return false;
    holder.state = "superseded";
    return true;
  }

  get(agentId: string): HeldAgent | undefined {
    return this.#holders.get(agentId);
  }

  /** The agent was deleted. */
  delete(agentId: string): void {
    this.#holders.delete(agentId);
  }

  /** Gives up all holds. Leases run on. */
  close(): void {
    const { registry } = this.#context;
    const held: HeldAgent[] = [];
    for (const holder of this.#holders.values()) {
      const entry = registry.get(holder.agentId);
      if (entry?.holder === holder) {
        entry.holder = undefined;
        registry.prune(entry);
      }
      if (holder.state === "held") held.push(holder);
    }
    this.#context.release(held);
  }

  #onClaim(holder: HeldAgent, result: ClaimResult | undefined): void {
    const waiting = this.#claiming.get(holder.agentId) ?? [];
    this.#claiming.delete(holder.agentId);
    if (result === undefined) {
      this.#session.onClaimFailed(databaseUnavailable(undefined));
      return;
    }
    const { agent } = result;
    // The agent may have moved to another claw while its claim waited. Then it is claimed, but not for this stream.
    const isOfClaw = agent !== undefined && this.#isOfClaw(agent);
    if (agent !== undefined && result.claimed && (this.#session.closed || !isOfClaw)) this.#giveBack(holder, agent);
    if (this.#session.closed) return;
    if (!result.claimed || !isOfClaw) {
      this.#reject(holder, agent, waiting);
      return;
    }
    const entry = this.#hold(holder, agent);
    for (const beat of waiting) {
      beat.claimsAnew = false;
      this.#accept(entry, beat);
    }
  }

  #isOfClaw({ clawIdentifier }: Agent): boolean {
    return this.#session.clawIdentifier === undefined || this.#session.clawIdentifier === clawIdentifier;
  }

  /** The claim succeeded for a stream that cannot use it. It gave this replica the agent's lease to watch. */
  #giveBack(holder: HeldAgent, agent: Agent): void {
    const { registry } = this.#context;
    registry.update(registry.open(agent.id, agent.agentId), agent);
    this.#context.release([{ ...holder, id: agent.id, epoch: agent.epoch }]);
  }

  /** The session did not get the agent. */
  #reject(holder: HeldAgent, agent: Agent | undefined, waiting: readonly StreamBeat[]): void {
    const refusal = this.#refusalOf(holder, agent);
    let claimsAnew = false;
    for (const beat of waiting) {
      // This ANEW beat arrived during an older claim. It now makes a second claim, and the beats after it wait for that one.
      claimsAnew ||= beat.claimsAnew && refusal.reason === "SESSION_SUPERSEDED";
      if (claimsAnew) {
        this.pass(beat);
        continue;
      }
      // If a move ended the agent's session meanwhile, no session holds it, and the beat may claim it again.
      if (agent === undefined || agent.held) beat.reclaimed = true;
      beat.settle({ kind: "refused", refusal, agent });
    }
  }

  #refusalOf(holder: HeldAgent, agent: Agent | undefined): Refusal {
    if (agent === undefined) {
      this.#holders.delete(holder.agentId);
      return agentNotFound(holder.agentId);
    }
    if (!this.#isOfClaw(agent)) {
      // If it moves back, the session may claim it as if for the first time.
      this.#holders.delete(holder.agentId);
      return wrongClaw(agent, this.#session.clawIdentifier ?? "");
    }
    holder.state = "superseded";
    // The session held it, and learned of its loss by this rejection: another replica has made the claim.
    if (holder.heldUnder !== undefined) this.#context.metrics.superseded("other_replica");
    holder.heldUnder = undefined;
    return sessionSuperseded(holder.agentId);
  }

  #hold(holder: HeldAgent, agent: Agent): AgentEntry {
    const { registry, intake } = this.#context;
    const entry = registry.open(agent.id, agent.agentId);
    const former = entry.holder;
    this.#session.onClaimed(agent);
    holder.state = "held";
    holder.id = agent.id;
    holder.epoch = agent.epoch;
    holder.heldUnder = undefined;
    holder.needsSnapshot = true;
    // The first result shows the agent at this revision or a later one. So no earlier transition is sent.
    holder.sentRevision = agent.revision;
    entry.holder = holder;
    registry.update(entry, agent);
    if (former !== undefined && former !== holder) {
      if (former.state === "held") this.#context.metrics.superseded(this.#takerOf(former));
      former.session.onSuperseded(former);
    }
    intake.supersede(entry);
    const open = agent.wakes?.open;
    if (open != null) this.#context.onOpenWake(holder, open);
    return entry;
  }

  /** How this session is related to the one that it takes an agent from. A stream that names no process is one of its own. */
  #takerOf({ session: { instance } }: HeldAgent): "same_process" | "other_process" {
    return instance !== undefined && instance === this.#session.instance ? "same_process" : "other_process";
  }

  #accept(entry: AgentEntry, beat: StreamBeat): void {
    beat.epoch = beat.holder.epoch;
    this.#context.intake.accept(entry, beat);
  }
}
