import type {
  AgentStatus,
  ExhaustReason,
  ReportedExhaustion,
  WorkingStatus,
} from "../../common/contract/enum-names.ts";

/**
 * The rules of the domain for one agent, written a second time in another form than the status machine: state
 * that changes in place, one method for each event. The property test compares the two.
 */
export type ModelExhaustion = { reason: ExhaustReason; since: number; until: number };
export type ModelReport = WorkingStatus | { exhausted: ReportedExhaustion } | undefined;

/** The range of the server's own choice, in milliseconds. */
export type Choice = { least: number; most: number };

/** The outcome of an event. `unchanged`: no transition. */
export type Outcome = "changed" | "unchanged" | "held_off" | "AGENT_OFFLINE" | "AGENT_EXHAUSTED";

const DAY = 24 * 3_600_000_000;

export class PresenceModel {
  now: number;
  status: AgentStatus = "idle";
  exhaustion: ModelExhaustion | null = null;
  /** A service's change that is not confirmed: what it protects, since which revision, until when. */
  word: { protects: "status" | "exhaustion"; revision: bigint; until: number } | null = null;
  /** The status to return to when a claim is not confirmed in time. */
  returnsTo: "idle" | "on_call" | "busy" | null = null;
  /** The exhaustions in a row without a given length. */
  unguided = 0;
  lastExhaustedUntil: number | null = null;
  /** Set when the last event let the server choose; the comparing test checks the choice and passes it on. */
  choice: Choice | null = null;

  constructor(now: number) {
    this.now = now;
  }

  /** The change whose hold is still active. */
  get standing() {
    return this.word !== null && this.now < this.word.until ? this.word : null;
  }

  beat(report: ModelReport, known: bigint | undefined): Outcome {
    this.choice = null;
    const claimed = this.returnsTo !== null && this.word !== null ? this.word.revision : null;
    if (claimed !== null && known !== undefined && known >= claimed) this.returnsTo = null;
    if (report === undefined) return this.#comeBack();
    const word = this.standing;
    const unheard = word !== null && (known === undefined || known < word.revision);
    if (unheard && !this.#saysTheSame(report)) {
      this.#comeBack();
      return "held_off";
    }
    const outcome = typeof report === "string" ? this.#works(report) : this.#runsOut(report.exhausted, "exhausted");
    if (outcome === "changed" || this.#saysTheSame(report)) {
      this.word = null;
      this.returnsTo = null;
    }
    return outcome;
  }

  service(
    wish: WorkingStatus | "offline" | { exhausted: ReportedExhaustion },
    holdMs: number | undefined,
    revision: bigint,
  ): Outcome {
    this.choice = null;
    if (wish === "offline") return this.leave();
    if (typeof wish === "object") {
      const outcome = this.#runsOut(wish.exhausted, this.status === "offline" ? "offline" : "exhausted");
      if (outcome === "changed") this.returnsTo = null;
      if (outcome === "changed" && this.exhaustion !== null) {
        const until = holdMs === undefined ? this.exhaustion.until : this.now + holdMs * 1_000;
        this.word = { protects: "exhaustion", revision, until };
      }
      return outcome;
    }
    if (this.status === "offline") {
      if (wish !== "idle" || this.exhaustion === null) return "AGENT_OFFLINE";
      this.#recover();
      this.#protectStatus(holdMs, revision);
      return "changed";
    }
    if (wish === this.status) return "unchanged";
    if (this.status === "exhausted") {
      if (wish !== "idle") return "AGENT_EXHAUSTED";
      this.#recover();
    }
    // A service recovers an exhausted agent by IDLE only, which is no claim.
    const before = this.returnsTo ?? (this.status === "exhausted" ? "idle" : this.status);
    this.status = wish;
    this.#protectStatus(holdMs, revision);
    const claims = wish !== "idle" && holdMs !== 0 && before !== wish;
    this.returnsTo = claims ? before : null;
    return "changed";
  }

  /** The hold of a claim ends. */
  claimEnds(): Outcome {
    this.choice = null;
    if (this.returnsTo === null || this.word === null || this.now < this.word.until) return "unchanged";
    this.status = this.returnsTo;
    this.returnsTo = null;
    this.word = null;
    return "changed";
  }

  /** The lease ends, the agent says goodbye, or a service puts it offline: the effect is the same. */
  leave(): Outcome {
    this.choice = null;
    if (this.status === "offline") return "unchanged";
    this.status = "offline";
    // A hold of a status ends with the status; an exhaustion is kept, and so is its hold.
    if (this.word?.protects === "status") this.word = null;
    this.returnsTo = null;
    return "changed";
  }

  timePassed(): Outcome {
    this.choice = null;
    if (this.exhaustion === null || this.now < this.exhaustion.until) return "unchanged";
    this.#recover();
    if (this.status === "exhausted") this.status = "idle";
    return "changed";
  }

  #protectStatus(holdMs: number | undefined, revision: bigint): void {
    this.word = { protects: "status", revision, until: this.now + (holdMs ?? 60_000) * 1_000 };
  }

  #saysTheSame(report: ModelReport): boolean {
    if (typeof report === "object") return this.exhaustion?.reason === report.exhausted.reason;
    // Of an offline agent, a service can only have cleared the exhaustion; a report of work clears it, too.
    if (this.status === "offline" && this.exhaustion === null) return true;
    return report === this.status;
  }

  #comeBack(): Outcome {
    if (this.status !== "offline") return "unchanged";
    const over = this.exhaustion === null || this.exhaustion.until <= this.now;
    if (over && this.exhaustion !== null) this.#recover();
    this.status = over ? "idle" : "exhausted";
    return "changed";
  }

  #works(status: WorkingStatus): Outcome {
    if (status === this.status) return "unchanged";
    if (status === "idle" && (this.status === "busy" || this.status === "on_call")) this.unguided = 0;
    if (this.exhaustion !== null) this.#recover();
    this.status = status;
    return "changed";
  }

  #recover(): void {
    if (this.exhaustion !== null) this.lastExhaustedUntil = this.now;
    this.exhaustion = null;
    this.word = null;
  }

  #runsOut(news: ReportedExhaustion, status: "exhausted" | "offline"): Outcome {
    const { reason, recoveryAt = 0, retryAfterMs = 0 } = news;
    const deadline = recoveryAt > this.now ? recoveryAt : null;
    const was = this.exhaustion;
    const ongoing = was !== null && (this.status === "exhausted" || was.until > this.now);
    const cameBack = this.status !== status;
    this.status = status;
    if (ongoing && was.reason === reason) {
      if (deadline === null || deadline === was.until) return cameBack ? "changed" : "unchanged";
      this.exhaustion = { ...was, until: deadline };
      return "changed";
    }
    const quietSince = was?.until ?? this.lastExhaustedUntil;
    if (quietSince !== null && this.now - quietSince > DAY) this.unguided = 0;
    let until = deadline ?? this.now + retryAfterMs * 1_000;
    if (deadline === null && retryAfterMs === 0) {
      const first = reason === "billing" ? 600_000 : 30_000;
      const plain = Math.min(86_400_000, first * 2 ** this.unguided);
      this.choice = { least: plain * 0.9, most: Math.min(86_400_000, plain * 1.1) };
      this.unguided++;
      until = Number.NaN;
    }
    this.exhaustion = { reason, since: ongoing ? was.since : this.now, until };
    return "changed";
  }
}
