import type { Agent, Transition } from "../domain/agent.ts";
import type { Refusal } from "../domain/errors.ts";
import { agentOf } from "../domain/filter.ts";
import { type BeatResult, MAX_AGENTS_PER_STREAM, type ParsedBeat } from "../domain/heartbeat.ts";
import { databaseUnavailable } from "../storage/failures.ts";
import type { AgentEntry } from "./agent-entry.ts";
import type { BeatIntake } from "./beat-intake.ts";
import { type ClaimResult, type Claims, instanceKey } from "./claims.ts";
import type { AgentHolder, HeldAgent } from "./held-agent.ts";
import type { BeatOutcome, PendingBeat } from "./pending-beat.ts";
import type { Registry } from "./registry.ts";
import { agentNotFound, nothingToResume, sessionSuperseded, tooManyAgents, wrongClaw } from "./session-errors.ts";

/** Messages that one stream may have unacknowledged before it is read no further. */
const MOST_UNACKNOWLEDGED = 64;
/**
 * Results that may wait for a client that does not read them, before its stream is read no further: those of one message, and
 * of such names as a message may hold that is wrong.
 */
const MOST_UNREAD_RESULTS = 1_000;
const MOST_UNREAD_CHARACTERS = 262_144;

export interface SessionOptions {
  readonly clawIdentifier: string | undefined;
  readonly instanceId: string | undefined;
  readonly generation: bigint;
}

export interface SessionOutput {
  readonly acknowledgedSequence: bigint;
  readonly results: readonly BeatResult[];
  readonly reconnectWithinMs: number | undefined;
  /** While the stream is new: the interval until its second beat, by which streams that opened together spread out. */
  readonly firstIntervalMs: number | undefined;
}

/** Whoever carries a session's stream. Not called within the session's own methods. */
export interface SessionListener {
  /** There may be something to take, or the session is over, or failed. */
  onNews(): void;
  /** After a `submit` that returned false: the next message may come. */
  onCapacity(): void;
}

interface Message {
  readonly sequence: bigint;
  unsettled: number;
}

export interface SessionContext {
  readonly registry: Registry;
  readonly intake: BeatIntake;
  readonly claims: Claims;
  leaseMs(): number;
  firstIntervalMs(): number;
  /** Whether no session holds the agent, and another replica watches its lease. */
  isWatchedElsewhere(agent: Agent | undefined): boolean;
  /** Asks the session, which has begun to claim an agent for the first time, to go elsewhere if this replica cannot. */
  sendElsewhere(session: Session): void;
  /** These are held no longer. */
  release(held: readonly HeldAgent[]): void;
  /** Has the session tell its listener of news: soon, and once for all that happens now. */
  announce(session: Session): void;
  onClosed(session: Session): void;
}

/** One heartbeat stream: its agents, what it has sent and what it has been told. */
export class Session implements AgentHolder {
  readonly clawIdentifier: string | undefined;
  readonly instance: string | undefined;
  readonly generation: bigint;
  readonly #context: SessionContext;
  readonly #listener: SessionListener;
  readonly #agents = new Map<string, HeldAgent>();
  /** Beats of agents whose claims are under way, in the order they came. */
  readonly #claiming = new Map<string, StreamBeat[]>();
  /** In the order of their sequences. */
  readonly #messages: Message[] = [];
  #acknowledged = 0n;
  #told = 0n;
  #results: BeatResult[] = [];
  #unreadCharacters = 0;
  /** Unasked results: the newest of each agent, so that a client that reads nothing costs no more than its agents. */
  readonly #unasked = new Map<string, BeatResult>();
  /** When the first beats were acknowledged; undefined: not yet. */
  #answeredAt: number | undefined;
  readonly #firstIntervalMs: number;
  #reconnectWithinMs: number | undefined;
  #finished = false;
  #failure: Refusal | undefined;
  #closed = false;
  /** Whether the reader waits for room. */
  #heldUp = false;
  /** Whether the listener is about to hear of news. */
  #announced = false;

  constructor(context: SessionContext, options: SessionOptions, listener: SessionListener) {
    this.#context = context;
    this.#listener = listener;
    this.clawIdentifier = options.clawIdentifier;
    this.instance = options.instanceId === undefined ? undefined : instanceKey(options.instanceId);
    this.generation = options.generation;
    this.#firstIntervalMs = context.firstIntervalMs();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Whether it has agents that this replica does not hold yet. */
  get isClaiming(): boolean {
    return this.#claiming.size > 0;
  }

  /** Takes a message. False: no other one before the listener hears that there is room. */
  submit(sequence: bigint, beats: readonly ParsedBeat[]): boolean {
    // The replica stops: what comes now is for the next one.
    if (this.#finished) return true;
    const message: Message = { sequence, unsettled: beats.length };
    this.#messages.push(message);
    for (let beatIndex = 0; beatIndex < beats.length; beatIndex += 1) {
      const beat = beats[beatIndex];
      if (beat !== undefined) this.#take(message, beatIndex, beat);
    }
    this.#acknowledge();
    this.#heldUp = this.#full();
    return !this.#heldUp;
  }

  /** @throws Refusal `DATABASE_UNAVAILABLE` where a beat cannot be applied: what is not acknowledged is to be sent again */
  take(): SessionOutput | undefined {
    if (this.#closed) return undefined;
    if (this.#failure !== undefined) throw this.#failure;
    const output = this.#output();
    if (output === undefined && this.#finished && this.#messages.length === 0) this.close();
    return output;
  }

  get over(): boolean {
    return this.#closed;
  }

  /** Tells the listener what has happened since the last time. */
  announce(): void {
    this.#announced = false;
    this.#listener.onNews();
    if (!this.#heldUp || this.#full()) return;
    this.#heldUp = false;
    this.#listener.onCapacity();
  }

  finish(): void {
    this.#finished = true;
    this.#wake();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const held: HeldAgent[] = [];
    for (const holder of this.#agents.values()) {
      const entry = this.#context.registry.get(holder.agentId);
      if (entry?.holder === holder) {
        entry.holder = undefined;
        this.#context.registry.dismiss(entry);
      }
      if (holder.state === "held") held.push(holder);
    }
    this.#context.release(held);
    this.#context.onClosed(this);
    this.#wake();
  }

  /** The replica is about to stop, or can do nothing for it: the stream should be opened elsewhere. */
  drain(reconnectWithinMs: number): void {
    this.#reconnectWithinMs = reconnectWithinMs;
    this.#wake();
  }

  superseded(holder: HeldAgent): void {
    if (holder.state !== "held") return;
    holder.state = "superseded";
    this.#tellUnasked(this.#refusal(holder.agentId, sessionSuperseded(holder.agentId), undefined, 0n, 0));
  }

  changed(transition: Transition): void {
    const { agentId } = transition;
    const after = agentOf(transition);
    const isDeleted = transition.cause === "deleted";
    if (isDeleted) this.#agents.delete(agentId);
    if (this.clawIdentifier !== undefined && after.clawIdentifier !== this.clawIdentifier) {
      // That it left is news. What becomes of it elsewhere, its end too, is none of this claw's business.
      if (isDeleted || transition.fromClaw !== this.clawIdentifier) return;
      // Nor who takes it over there. Moved back, it is claimed again with its next beat.
      const holder = this.#agents.get(agentId);
      if (holder?.state === "held") holder.state = "superseded";
      this.#tellUnasked(this.#refusal(agentId, wrongClaw(after), undefined, 0n, 0));
    } else if (isDeleted) {
      this.#tellUnasked(this.#refusal(agentId, agentNotFound(agentId), undefined, 0n, 0));
    } else {
      const { status, exhaustion, revision } = after;
      this.#tellUnasked({ agentId, status, exhaustion, revision, refusal: null, sequence: 0n, beatIndex: 0 });
    }
  }

  #take(message: Message, beatIndex: number, parsed: ParsedBeat): void {
    const { agentId } = parsed;
    if ("refusal" in parsed) {
      this.#refuse(message, beatIndex, agentId, parsed.refusal);
      return;
    }
    const { start } = parsed;
    if (start === "resume" && this.instance === undefined) {
      this.#refuse(message, beatIndex, agentId, nothingToResume(beatIndex));
      return;
    }
    let holder = this.#agents.get(agentId);
    if (holder === undefined) {
      if (this.#agents.size >= MAX_AGENTS_PER_STREAM) {
        this.#refuse(message, beatIndex, agentId, tooManyAgents(MAX_AGENTS_PER_STREAM));
        return;
      }
      holder = {
        session: this,
        agentId,
        state: "new",
        start,
        id: 0n,
        epoch: 0n,
        heldUnder: undefined,
        told: 0n,
        introduce: true,
      };
      this.#agents.set(agentId, holder);
    }
    const beat = parsed.leaving ? "leaving" : parsed.beat;
    const pending = new StreamBeat(this, message, beatIndex, holder, beat, this.#context.leaseMs());
    // Of an agent that the stream holds, as far as it has been told, it is no news. Kept for later, it would take the agent
    // from a process that claims it after this beat.
    if (start === "anew" && holder.state !== "held") pending.claimsAnew = true;
    this.#pass(holder, pending);
  }

  /** What became of a beat that this session passed on. */
  settled(pending: StreamBeat, outcome: BeatOutcome): void {
    const { holder } = pending;
    if (this.#closed) {
      // The stream ended before this was committed, which may have held the agent again.
      if (holder.state === "held") this.#context.release([holder]);
      return;
    }
    const lost = outcome.kind === "refused" && outcome.refusal.reason === "SESSION_SUPERSEDED";
    // Taken over, or merely moved or adopted: it may be claimed again where nobody holds it, and, by a stream that says why
    // it beats, where no other process has held it. Once for each beat.
    if (lost && !pending.reclaimed) {
      pending.reclaimed = true;
      // Unless it was claimed again since this beat was passed on.
      if (holder.state === "held" && holder.epoch === pending.epoch) {
        holder.state = "superseded";
        // After a restore it is perhaps an older session that seems to have the agent.
        holder.heldUnder = holder.epoch;
      }
      this.#pass(holder, pending);
      return;
    }
    this.#settle(pending.message, pending.beatIndex, holder, outcome);
  }

  /** Sends a beat on its way, by a claim first where the session does not hold the agent. */
  #pass(holder: HeldAgent, pending: StreamBeat): void {
    const claiming = this.#claiming.get(holder.agentId);
    if (claiming !== undefined) {
      claiming.push(pending);
      return;
    }
    const entry = holder.state === "held" ? this.#context.registry.get(holder.agentId) : undefined;
    if (entry !== undefined && entry.holder === holder) {
      if (!this.#context.isWatchedElsewhere(entry.agent)) {
        this.#accept(entry, pending);
        return;
      }
      // Offline, it came back by a single heartbeat at another replica, which watches its lease and would not know that
      // this one is isolated: it is claimed again, if nobody else has.
      holder.state = "superseded";
    }
    if (pending.claimsAnew) {
      // By this one claim: lost again, the beat is no new word of the program.
      pending.claimsAnew = false;
      holder.state = "new";
      holder.start = "anew";
    }
    this.#claiming.set(holder.agentId, [pending]);
    // Of one that was superseded another stream takes care.
    if (holder.state === "new") this.#context.sendElsewhere(this);
    void this.#context.claims.claim(holder).then((result) => this.#claimed(holder, result));
  }

  #claimed(holder: HeldAgent, result: ClaimResult | undefined): void {
    const waiting = this.#claiming.get(holder.agentId) ?? [];
    this.#claiming.delete(holder.agentId);
    if (result === undefined) {
      this.#fail(databaseUnavailable(undefined));
      return;
    }
    const { agent } = result;
    // Not where it moved while its claim waited for the move: then it is claimed, but not this stream's.
    const fits = agent !== undefined && (this.clawIdentifier ?? agent.clawIdentifier) === agent.clawIdentifier;
    if (agent !== undefined && result.claimed && (this.#closed || !fits)) {
      // The claim made the lease this replica's to watch.
      const { registry } = this.#context;
      registry.learn(registry.open(agent.id, agent.agentId), agent);
      this.#context.release([{ ...holder, id: agent.id, epoch: agent.epoch }]);
    }
    if (this.#closed) return;
    if (!result.claimed || !fits) {
      const refusal = this.#unclaimed(holder, agent);
      let anew = false;
      for (const pending of waiting) {
        // It came while an older claim was under way, and is a claim of its own. What came after it waits for that.
        anew ||= pending.claimsAnew && refusal.reason === "SESSION_SUPERSEDED";
        if (anew) {
          this.#pass(holder, pending);
          continue;
        }
        // Unless its session was ended in between, by a move: then it is nobody's, and may be claimed again.
        if (agent === undefined || agent.held) pending.reclaimed = true;
        pending.settle({ kind: "refused", refusal, agent });
      }
      return;
    }
    const entry = this.#hold(holder, agent);
    for (const pending of waiting) {
      pending.claimsAnew = false;
      this.#accept(entry, pending);
    }
  }

  #accept(entry: AgentEntry, pending: PendingBeat): void {
    pending.epoch = pending.holder?.epoch ?? 0n;
    this.#context.intake.accept(entry, pending);
  }

  #unclaimed(holder: HeldAgent, agent: Agent | undefined): Refusal {
    if (agent === undefined) {
      this.#agents.delete(holder.agentId);
      return agentNotFound(holder.agentId);
    }
    if (this.clawIdentifier !== undefined && this.clawIdentifier !== agent.clawIdentifier) {
      // Moved back, it may be claimed as if for the first time.
      this.#agents.delete(holder.agentId);
      return wrongClaw(agent);
    }
    holder.state = "superseded";
    holder.heldUnder = undefined;
    return sessionSuperseded(holder.agentId);
  }

  #hold(holder: HeldAgent, agent: Agent): AgentEntry {
    const { registry, intake } = this.#context;
    const entry = registry.open(agent.id, agent.agentId);
    const former = entry.holder;
    this.#unasked.delete(agent.agentId);
    holder.state = "held";
    holder.id = agent.id;
    holder.epoch = agent.epoch;
    holder.heldUnder = undefined;
    holder.introduce = true;
    // The first result tells the agent as of this revision or a later one: what led up to it is no news.
    holder.told = agent.revision;
    entry.holder = holder;
    registry.learn(entry, agent);
    if (former !== undefined && former !== holder) former.session.superseded(former);
    intake.supersede(entry);
    return entry;
  }

  #settle(message: Message, beatIndex: number, holder: HeldAgent, outcome: BeatOutcome): void {
    const { agentId } = holder;
    if (outcome.kind === "open") {
      this.#fail(outcome.refusal);
      return;
    }
    if (outcome.kind === "refused") {
      const result = this.#refusal(agentId, outcome.refusal, outcome.agent, message.sequence, beatIndex);
      if (result.revision !== null) holder.told = result.revision;
      this.#results.push(result);
    } else if (outcome.agent !== undefined) {
      const { status, exhaustion, revision } = outcome.agent;
      holder.introduce = false;
      holder.told = revision;
      this.#results.push({
        agentId,
        status,
        exhaustion,
        revision,
        refusal: null,
        sequence: message.sequence,
        beatIndex,
      });
    }
    message.unsettled -= 1;
    this.#acknowledge();
  }

  /** A beat that is never settled would hold up all acknowledgements after it: the stream ends instead. */
  #fail(refusal: Refusal): void {
    this.#failure ??= refusal;
    this.#wake();
  }

  #refuse(message: Message, beatIndex: number, agentId: string, refusal: Refusal): void {
    this.#results.push(this.#refusal(agentId, refusal, undefined, message.sequence, beatIndex));
    this.#unreadCharacters += agentId.length;
    message.unsettled -= 1;
  }

  #refusal(
    agentId: string,
    refusal: Refusal,
    agent: Agent | undefined,
    sequence: bigint,
    beatIndex: number,
  ): BeatResult {
    // Of an agent that is not this stream's to speak for, nothing is told.
    const view = refusal.reason === "REPORT_OUTDATED" ? agent : undefined;
    return {
      agentId,
      status: view?.status ?? null,
      exhaustion: view?.exhaustion ?? null,
      revision: view?.revision ?? null,
      refusal,
      sequence,
      beatIndex,
    };
  }

  #tellUnasked(result: BeatResult): void {
    this.#unasked.set(result.agentId, result);
    this.#wake();
  }

  #acknowledge(): void {
    for (let first = this.#messages[0]; first !== undefined && first.unsettled === 0; first = this.#messages[0]) {
      this.#messages.shift();
      this.#acknowledged = first.sequence;
    }
    this.#wake();
  }

  #full(): boolean {
    return (
      this.#messages.length >= MOST_UNACKNOWLEDGED ||
      this.#results.length >= MOST_UNREAD_RESULTS ||
      this.#unreadCharacters >= MOST_UNREAD_CHARACTERS
    );
  }

  #output(): SessionOutput | undefined {
    const news =
      this.#acknowledged !== this.#told ||
      this.#results.length > 0 ||
      this.#unasked.size > 0 ||
      this.#reconnectWithinMs !== undefined;
    if (!news) return undefined;
    if (this.#acknowledged > 0n) this.#answeredAt ??= performance.now();
    const output: SessionOutput = {
      acknowledgedSequence: this.#acknowledged,
      results: [...this.#results, ...this.#unasked.values()],
      reconnectWithinMs: this.#reconnectWithinMs,
      firstIntervalMs: this.#isFirst() ? this.#firstIntervalMs : undefined,
    };
    this.#told = this.#acknowledged;
    this.#results = [];
    this.#unreadCharacters = 0;
    this.#unasked.clear();
    this.#reconnectWithinMs = undefined;
    // What was full of results is so no longer.
    if (this.#heldUp) this.#wake();
    return output;
  }

  /** Whether the second beat is still to come: counted from the first answer, which is late where very many connect at once. */
  #isFirst(): boolean {
    return this.#answeredAt === undefined || performance.now() - this.#answeredAt < this.#firstIntervalMs;
  }

  #wake(): void {
    if (this.#announced) return;
    this.#announced = true;
    this.#context.announce(this);
  }
}

/** A beat that came with a stream. A class, and not an object with its functions: there are thousands a second. */
class StreamBeat implements PendingBeat {
  readonly #session: Session;
  readonly message: Message;
  readonly beatIndex: number;
  readonly holder: HeldAgent;
  readonly beat: PendingBeat["beat"];
  readonly leaseMs: number;
  epoch = 0n;
  heldOff = false;
  reclaimed = false;
  /** Whether its program claims the agent anew by it, and no such claim was made for it yet. */
  claimsAnew = false;

  constructor(
    session: Session,
    message: Message,
    beatIndex: number,
    holder: HeldAgent,
    beat: PendingBeat["beat"],
    leaseMs: number,
  ) {
    this.#session = session;
    this.message = message;
    this.beatIndex = beatIndex;
    this.holder = holder;
    this.beat = beat;
    this.leaseMs = leaseMs;
  }

  get agentId(): string {
    return this.holder.agentId;
  }

  /** Its session says which claw it speaks for. */
  get clawIdentifier(): undefined {
    return undefined;
  }

  /** What a stream said stands, whatever became of the stream. */
  get deadline(): undefined {
    return undefined;
  }

  get abandoned(): boolean {
    return false;
  }

  settle(outcome: BeatOutcome): void {
    this.#session.settled(this, outcome);
  }
}
