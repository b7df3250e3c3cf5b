import type { Agent, Transition } from "../domain/agent.ts";
import type { HeartbeatSession, SessionListener, SessionOptions } from "../domain/claw-session.ts";
import type { Refusal } from "../domain/errors.ts";
import { agentOf } from "../domain/filter.ts";
import { MAX_AGENTS_PER_STREAM, type ParsedBeat } from "../domain/heartbeat.ts";
import type { BeatResult, SessionOutput, WakeNotice } from "../domain/message-to-claw.ts";
import { instanceKey } from "./claims.ts";
import type { HeldAgent } from "./held-agent.ts";
import { HeldAgents, type HoldingContext, type HoldingSession } from "./held-agents.ts";
import { MessageWindow, type ReceivedMessage } from "./message-window.ts";
import { Outbox } from "./outbox.ts";
import { type BeatOutcome, beatResult, type SettledOutcome } from "./pending-beat.ts";
import { agentNotFound, nothingToResume, sessionSuperseded, tooManyAgents, wrongClaw } from "./session-refusals.ts";
import { type BeatOwner, StreamBeat } from "./stream-beat.ts";

/** What all sessions of a replica share. */
export interface SessionContext extends HoldingContext {
  /** The length of a lease now, in milliseconds. */
  leaseMs(): number;
  /** The interval until a new stream's second beat, in milliseconds. */
  firstIntervalMs(): number;
  /** Drains a session that begins to claim an agent for the first time, if this replica cannot claim it. */
  onFirstClaim(session: StreamSession): void;
  /** Calls `notifyListener` of the session soon, and once for everything that happens in this turn of the event loop. */
  scheduleNotification(session: StreamSession): void;
  onClosed(session: StreamSession): void;
  /** Reads a wake, and sends its state to the session that holds the agent. */
  sendWake(holder: HeldAgent, wakeId: string): void;
  /** A stream holds an agent of a claw for the first time. */
  onClawHeard(clawIdentifier: string, peer: string): void;
}

type SessionState =
  | { readonly name: "open" }
  /** The stream ends with this refusal as soon as its transport takes it. */
  | { readonly name: "failed"; readonly refusal: Refusal }
  | { readonly name: "closed" };

const OPEN: SessionState = { name: "open" };
const CLOSED: SessionState = { name: "closed" };

/** One heartbeat stream: takes its messages, holds its agents, and fills its outbox. */
export class StreamSession implements HeartbeatSession, HoldingSession, BeatOwner {
  readonly clawIdentifier: string | undefined;
  readonly instance: string | undefined;
  readonly generation: bigint;
  readonly wakesFor: string | undefined;
  readonly #peer: string | undefined;
  /** The claws whose agents it held. */
  readonly #claws = new Set<string>();
  readonly #context: SessionContext;
  readonly #listener: SessionListener;
  readonly #agents: HeldAgents;
  readonly #window: MessageWindow;
  readonly #outbox: Outbox;
  #state: SessionState = OPEN;
  /** Takes no more messages, open or failed. Without a failure, it sends what is due, then closes. */
  #isFinishing = false;
  /** Whether the transport waits for capacity before it submits the next message. */
  #isReaderWaiting = false;
  #isNotificationScheduled = false;
  /** The transitions that replies of these agents made: results told of them. Undefined until the first reply. */
  #replied: Map<string, bigint> | undefined;

  constructor(context: SessionContext, options: SessionOptions, listener: SessionListener) {
    this.#context = context;
    this.#listener = listener;
    this.clawIdentifier = options.clawIdentifier;
    this.instance = options.instanceId === undefined ? undefined : instanceKey(options.instanceId);
    this.generation = options.generation;
    this.wakesFor = options.takesWakes === true ? options.instanceId : undefined;
    this.#peer = options.peer;
    this.#agents = new HeldAgents(this, context);
    this.#window = new MessageWindow(({ receivedAt }) => context.metrics.acknowledged(receivedAt));
    this.#outbox = new Outbox(context.firstIntervalMs());
  }

  get closed(): boolean {
    return this.#state.name === "closed";
  }

  get over(): boolean {
    return this.closed;
  }

  /** Whether it has agents that this replica does not hold yet. */
  get isClaiming(): boolean {
    return this.#agents.isClaiming;
  }

  submit(sequence: bigint, beats: readonly ParsedBeat[]): boolean {
    // The message stays unacknowledged, so the claw sends it again, to the next replica.
    if (this.#isFinishing || this.#state.name === "closed") return true;
    const message = this.#window.add(sequence, beats.length);
    for (let beatIndex = 0; beatIndex < beats.length; beatIndex += 1) {
      const beat = beats[beatIndex];
      if (beat !== undefined) this.#takeBeat(message, beatIndex, beat);
    }
    this.#acknowledge();
    this.#isReaderWaiting = this.#isFull;
    return !this.#isReaderWaiting;
  }

  take(): SessionOutput | undefined {
    if (this.#state.name === "closed") return undefined;
    if (this.#state.name === "failed") throw this.#state.refusal;
    const output = this.#outbox.take(this.#window.acknowledgedSequence);
    if (output === undefined) {
      if (this.#isFinishing && this.#window.isEmpty) this.close();
      return undefined;
    }
    // The outbox has room again.
    if (this.#isReaderWaiting) this.#scheduleNotification();
    return output;
  }

  /** Tells the listener what happened since the last time. */
  notifyListener(): void {
    this.#isNotificationScheduled = false;
    this.#listener.onOutput();
    if (!this.#isReaderWaiting || this.#isFull) return;
    this.#isReaderWaiting = false;
    this.#listener.onCapacity();
  }

  finish(): void {
    this.#isFinishing = true;
    this.#scheduleNotification();
  }

  close(): void {
    if (this.#state.name === "closed") return;
    this.#state = CLOSED;
    this.#agents.close();
    this.#context.onClosed(this);
    this.#scheduleNotification();
  }

  /** Asks the claw to open its stream elsewhere, within so many milliseconds. The stream stays open meanwhile. */
  drain(reconnectWithinMs: number): void {
    this.#outbox.put({ kind: "draining", reconnectWithinMs });
    this.#scheduleNotification();
  }

  onSuperseded(holder: HeldAgent): void {
    const { agentId } = holder;
    if (this.#agents.supersede(holder)) this.#putLoss(agentId, sessionSuperseded(agentId));
  }

  onTransition(transition: Transition): void {
    const { agentId } = transition;
    const after = agentOf(transition);
    const isDeleted = transition.cause === "deleted";
    if (isDeleted) this.#agents.delete(agentId);
    if (this.clawIdentifier !== undefined && after.clawIdentifier !== this.clawIdentifier) {
      // The claw learns that the agent left, and nothing of what happens to it in another claw, not even its deletion.
      if (isDeleted || transition.fromClaw !== this.clawIdentifier) return;
      // A later takeover in the other claw is not sent. If the agent moves back, its next beat claims it again.
      this.#agents.supersede(this.#agents.get(agentId));
      this.#putLoss(agentId, wrongClaw(after, this.clawIdentifier));
    } else if (isDeleted) {
      this.#putLoss(agentId, agentNotFound(agentId));
    } else {
      const { status, exhaustion, revision } = after;
      this.#outbox.put({ kind: "change", agentId, status, exhaustion, revision });
      this.#scheduleNotification();
    }
  }

  onWake(holder: HeldAgent, wakeId: string, revision: bigint): void {
    if (this.wakesFor === undefined || this.#replied?.get(holder.agentId) === revision) return;
    this.#context.sendWake(holder, wakeId);
  }

  notifyOfWake(notice: WakeNotice): void {
    this.#outbox.put(notice);
    this.#scheduleNotification();
  }

  onFirstClaim(): void {
    this.#context.onFirstClaim(this);
  }

  onClaimed({ agentId, clawIdentifier }: Agent): void {
    this.#outbox.dropChange(agentId);
    if (this.#peer === undefined || this.#claws.has(clawIdentifier)) return;
    this.#claws.add(clawIdentifier);
    this.#context.onClawHeard(clawIdentifier, this.#peer);
  }

  onClaimFailed(refusal: Refusal): void {
    this.#fail(refusal);
  }

  onSettled(beat: StreamBeat, outcome: BeatOutcome): void {
    const { holder, message, beatIndex } = beat;
    if (this.#state.name === "closed") {
      if (outcome.kind !== "open") this.#context.metrics.settled(outcome);
      // The stream ended before this was committed, which may have set the hold again.
      if (holder.state === "held") this.#context.release([holder]);
      return;
    }
    if (this.#agents.reclaim(beat, outcome)) return;
    if (outcome.kind === "open") {
      this.#fail(outcome.refusal);
      return;
    }
    this.#context.metrics.settled(outcome);
    if (outcome.replied?.revision !== undefined) {
      this.#replied ??= new Map();
      this.#replied.set(holder.agentId, outcome.replied.revision);
    }
    if (outcome.kind === "refused" || outcome.agent !== undefined) {
      const result = beatResult(holder.agentId, outcome, message.sequence, beatIndex);
      if (outcome.kind === "applied") holder.needsSnapshot = false;
      if (result.revision !== null) holder.sentRevision = result.revision;
      this.#settle(message, result);
    } else {
      message.unsettledBeats -= 1;
    }
    this.#acknowledge();
  }

  #takeBeat(message: ReceivedMessage, beatIndex: number, parsed: ParsedBeat): void {
    const { agentId } = parsed;
    if ("refusal" in parsed) {
      this.#reject(message, beatIndex, agentId, parsed.refusal);
      return;
    }
    const { start } = parsed;
    if (start === "resume" && this.instance === undefined) {
      this.#reject(message, beatIndex, agentId, nothingToResume(beatIndex));
      return;
    }
    const holder = this.#agents.open(agentId, start);
    if (holder === undefined) {
      this.#reject(message, beatIndex, agentId, tooManyAgents(MAX_AGENTS_PER_STREAM));
      return;
    }
    const body = parsed.leaving && parsed.beat.replies === undefined ? "leaving" : parsed.beat;
    const beat = new StreamBeat(this, message, beatIndex, holder, body, this.#context.leaseMs());
    // If this stream believes that it holds the agent, no claim is kept for later. It could take the agent from a process
    // that claims it after this beat.
    if (start === "anew" && holder.state !== "held") beat.claimsAnew = true;
    this.#agents.pass(beat);
  }

  /** Rejects a beat before it reaches the agent. */
  #reject(message: ReceivedMessage, beatIndex: number, agentId: string, refusal: Refusal): void {
    const outcome: SettledOutcome = { kind: "refused", refusal, agent: undefined };
    this.#context.metrics.settled(outcome);
    this.#settle(message, beatResult(agentId, outcome, message.sequence, beatIndex));
  }

  #settle(message: ReceivedMessage, result: BeatResult): void {
    message.unsettledBeats -= 1;
    this.#outbox.put(result);
  }

  #acknowledge(): void {
    this.#window.advance();
    this.#scheduleNotification();
  }

  /** A beat that is never settled would block all later acknowledgements. So the stream ends. */
  #fail(refusal: Refusal): void {
    if (this.#state.name === "open") this.#state = { name: "failed", refusal };
    this.#scheduleNotification();
  }

  #putLoss(agentId: string, refusal: Refusal): void {
    this.#outbox.put({ kind: "lost", agentId, refusal });
    this.#scheduleNotification();
  }

  get #isFull(): boolean {
    return this.#window.isFull || this.#outbox.isFull;
  }

  #scheduleNotification(): void {
    if (this.#isNotificationScheduled) return;
    this.#isNotificationScheduled = true;
    this.#context.scheduleNotification(this);
  }
}
