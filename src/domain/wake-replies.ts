import type { WakeState } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import { Refusal } from "./errors.ts";
import { isTerminal, type OpenWake, type Wake, type WakeReply, type WakeReplyResult, type WakeWrite } from "./wake.ts";
import { stepOf, type WakeEvent } from "./wake-machine.ts";

/** The process that replies. Both are undefined for a unary heartbeat, which can only finish a wake. */
export interface Replier {
  /** The `instance_id` of the stream; undefined: the stream has none, or takes no wakes. */
  readonly instanceId: string | undefined;
}

/** What the replies of a beat do. */
export interface JudgedReplies {
  /** In the order of the replies. */
  readonly results: readonly WakeReplyResult[];
  /** One for each wake that changes. */
  readonly writes: ReadonlyMap<string, WakeWrite>;
  /** The open wake after the replies. Its acceptance, if these replies made it, has no revision yet. */
  readonly open: OpenWake | null;
  /** How the replies ended the open wake; undefined: they did not. */
  readonly ended: "declined" | "finished" | "expired" | undefined;
  /** Whether the agent said that it takes or runs the open wake. */
  readonly isWorking: boolean;
  /** Whether a wake finished with success. */
  readonly hasSucceeded: boolean;
}

/**
 * Judges the replies of one beat, in their order.
 *
 * @param open the agent's open wake
 * @param known the wakes that the replies name and that belong to the agent, open or not, by their names
 * @param now the database's clock
 */
export function judgeReplies(
  open: OpenWake | null,
  known: ReadonlyMap<string, Wake>,
  replies: readonly WakeReply[],
  replier: Replier,
  now: Micros,
): JudgedReplies {
  const draft = new Draft(open, known, replier, now);
  const results = replies.map((reply) => draft.take(reply));
  return {
    results,
    writes: draft.writes,
    open: draft.open,
    ended: draft.ended,
    isWorking: draft.isWorking,
    hasSucceeded: draft.hasSucceeded,
  };
}

/** The wakes of an agent while the replies of one beat are applied. */
class Draft {
  readonly writes = new Map<string, WakeWrite>();
  open: OpenWake | null;
  ended: JudgedReplies["ended"];
  isWorking = false;
  hasSucceeded = false;
  readonly #known: ReadonlyMap<string, Wake>;
  readonly #states = new Map<string, WakeState>();
  readonly #replier: Replier;
  readonly #now: Micros;

  constructor(open: OpenWake | null, known: ReadonlyMap<string, Wake>, replier: Replier, now: Micros) {
    this.open = open;
    this.#known = known;
    this.#replier = replier;
    this.#now = now;
  }

  take(reply: WakeReply): WakeReplyResult {
    if (this.open?.wakeId === reply.wakeId) return this.#takeOpen(this.open, reply);
    const wake = this.#known.get(reply.wakeId);
    if (wake === undefined) return refused(reply, null, wakeNotFound(reply.wakeId));
    const state = this.#states.get(reply.wakeId) ?? wake.state;
    if (!isTerminal(state)) return refused(reply, state, offerOutdated(reply.wakeId));
    return this.#takeEnded(wake, state, reply);
  }

  #takeOpen(open: OpenWake, reply: WakeReply): WakeReplyResult {
    const { wakeId } = reply;
    if (open.offerRevision !== reply.offerRevision) return refused(reply, open.state, offerOutdated(wakeId));
    switch (reply.type) {
      case "accept":
      case "working":
        return this.#accept(open, reply);
      case "decline":
        if (open.state === "accepted") return refused(reply, open.state, offerOutdated(wakeId));
        return this.#end(open, "decline", reply);
      case "finished":
        return this.#end(open, "finish", reply);
    }
  }

  #accept(open: OpenWake, reply: WakeReply): WakeReplyResult {
    const { instanceId } = this.#replier;
    if (open.state === "accepted") {
      if (open.acceptedBy !== instanceId) return refused(reply, "accepted", wakeEnded(open.wakeId, "accepted"));
      this.isWorking = true;
      return { wakeId: open.wakeId, state: "accepted", refusal: null };
    }
    // Only a stream that takes wakes has offers. The offer is about to be withdrawn.
    if (instanceId === undefined) return refused(reply, "offered", offerOutdated(open.wakeId));
    if (open.expiresAt <= this.#now) {
      const write = stepOf(open, "no_answer", this.#now);
      if (write !== undefined) this.#write(write);
      this.#close(open, "expired", "expired");
      return refused(reply, "expired", wakeEnded(open.wakeId, "expired"));
    }
    const write = stepOf(open, "accept", this.#now);
    if (write !== undefined) this.#write({ ...write, acceptedBy: instanceId, inTime: true });
    this.open = { ...open, state: "accepted", acceptedBy: instanceId, acceptedAt: this.#now, answerBy: null };
    this.isWorking = true;
    return { wakeId: open.wakeId, state: "accepted", refusal: null };
  }

  #end(open: OpenWake, event: Extract<WakeEvent, "decline" | "finish">, reply: WakeReply): WakeReplyResult {
    const write = stepOf(open, event, this.#now, reply.reason);
    if (write === undefined) return refused(reply, open.state, offerOutdated(open.wakeId));
    const isFinish = event === "finish";
    this.#write({ ...write, note: reply.note, ...(isFinish ? { outcome: reply.outcome } : {}) });
    this.hasSucceeded ||= isFinish && reply.outcome === "succeeded";
    this.#close(open, isFinish ? "finished" : "declined", write.state);
    return { wakeId: open.wakeId, state: write.state, refusal: null };
  }

  #takeEnded(wake: Wake, state: WakeState, reply: WakeReply): WakeReplyResult {
    const { wakeId } = reply;
    const isLate = reply.type === "finished" && reply.offerRevision === wake.offerRevision;
    // The first outcome counts; a repetition changes nothing.
    if (isLate && state === "finished") return { wakeId, state, refusal: null };
    if (!isLate || wake.acceptedRevision === null) return refused(reply, state, wakeEnded(wakeId, state));
    if (wake.lateOutcome === null && !this.writes.has(wakeId)) {
      const from = { state: wake.state, offerRevision: wake.offerRevision };
      this.#write({ wakeId, from, state: wake.state, reason: wake.reason, lateOutcome: reply.outcome });
    }
    return { wakeId, state, refusal: null };
  }

  #close(open: OpenWake, ended: NonNullable<JudgedReplies["ended"]>, state: WakeState): void {
    this.open = null;
    this.ended = ended;
    this.isWorking = false;
    this.#states.set(open.wakeId, state);
  }

  /** Several replies to one wake are one change of it. */
  #write(write: WakeWrite): void {
    const former = this.writes.get(write.wakeId);
    this.writes.set(write.wakeId, former === undefined ? write : { ...former, ...write, from: former.from });
  }
}

function refused({ wakeId }: WakeReply, state: WakeState | null, refusal: Refusal): WakeReplyResult {
  return { wakeId, state, refusal };
}

/** Also for a wake of another agent: its reply must not learn that the wake exists. */
export function wakeNotFound(wakeId: string): Refusal {
  return new Refusal("WAKE_NOT_FOUND", `wake_id: '${wakeId}' does not exist.`, { metadata: { wakeId } });
}

export function offerOutdated(wakeId: string): Refusal {
  return new Refusal(
    "OFFER_OUTDATED",
    `The reply to '${wakeId}' does not fit its present offer. Start no work for it, and wait for the next update.`,
    { metadata: { wakeId } },
  );
}

export function wakeEnded(wakeId: string, state: WakeState): Refusal {
  const message =
    state === "accepted"
      ? `Another process has accepted '${wakeId}'. Stop the work for it.`
      : `'${wakeId}' has ended: ${state}. Stop the work for it.`;
  return new Refusal("WAKE_ENDED", message, { metadata: { wakeId, state: state.toUpperCase() } });
}
