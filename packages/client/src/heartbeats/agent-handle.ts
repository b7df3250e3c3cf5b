import type { Unknown } from "../../../../src/contract/enums.ts";
import { MICROS_PER_MS } from "../../../../src/contract/time.ts";
import {
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  FURTHEST_RECOVERY_MS,
  type WorkingStatus,
} from "../../../../src/contract/words.ts";
import { Listeners, type OnListenerError } from "../event-listeners.ts";
import type { BeatView, ExhaustionView } from "../views.ts";
import type { AgentClaim, BeatContent, Report, ReportResult, Settle } from "./beat-queue.ts";
import { failureOf, ReportError, refusedReport } from "./report-error.ts";

const REASONS: ReadonlySet<unknown> = new Set(EXHAUST_REASONS);

/** Why an agent cannot work, as it says itself. */
export interface ExhaustionReport {
  readonly reason: ExhaustReason;
  /** The moment of recovery that the provider named. Prefer `retryAfterMs` where it named both, since clocks differ. */
  readonly recoveryAt?: Date | undefined;
  /** The time until recovery in milliseconds, at most 366 days. With neither, or with what is zero or past, the server chooses. */
  readonly retryAfterMs?: number | undefined;
}

/** What an agent is to the service. */
export interface AgentStatusEvent {
  readonly agentId: string;
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: ExhaustionView | undefined;
  readonly revision: bigint;
}

export interface AgentEvents {
  /** What the service says that this agent is, where that is not what it said itself: at first, and whenever it changes. */
  readonly status: AgentStatusEvent;
  /**
   * Another process beats for the agent now, or has while this one was cut off or frozen. This one leaves the agent alone
   * until `claim()`.
   */
  readonly superseded: ReportError;
  /** A beat was not taken. Where the agent itself is refused, it is tried again each minute. */
  readonly refused: ReportError;
}

/** `applied`: acknowledged. `overtaken`: the agent said something newer before that. */
export type ReportOutcome = "applied" | "overtaken";

export interface WaitOptions {
  /** Ends the waiting with its reason. What was said stays said. */
  readonly signal?: AbortSignal;
}

/**
 * How an agent stands with this client: it beats; it is on its way out or has gone; another process has it; or the
 * service refuses it (unknown, of another claw, not permitted).
 */
export type Presence = "beating" | "leaving" | "left" | "superseded" | "refused";

/**
 * One agent of a claw. It beats from its making until `leave()`.
 *
 * Each report is sent at once, and again on another connection until it is acknowledged; the newest counts. The promises
 * resolve when that has happened and reject with a ReportError when the report is refused. Nobody has to wait for them:
 * a rejection that nobody takes is no fault of the process.
 */
export interface AgentHandle {
  readonly agentId: string;
  /** What the agent is, as far as both sides agree. Undefined until the service has answered. */
  readonly status: AgentStatus | Unknown | undefined;
  readonly exhaustion: ExhaustionView | undefined;
  readonly presence: Presence;
  /** Reports that it is free. */
  idle(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that it takes a call. */
  onCall(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that it works. */
  busy(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that it is out of quota or of money, as `exhaustionFromError` makes it of what a provider answered. */
  exhausted(report: ExhaustionReport, options?: WaitOptions): Promise<ReportOutcome>;
  /** Says goodbye: it goes offline at once, after what it reported before. A later report brings it back. */
  leave(options?: WaitOptions): Promise<ReportOutcome>;
  /**
   * Beats for it again although another process took it over, and takes it back from that one. Does nothing for an agent
   * that beats.
   */
  claim(): void;
  /** @returns what ends the listening */
  on<Name extends keyof AgentEvents>(name: Name, listener: (event: AgentEvents[Name]) => void): () => void;
}

/** What a seat needs of its client. */
export interface AgentHost {
  readonly closed: boolean;
  /** Lets the agent beat, on whichever stream has room. */
  add(agent: BeatingAgent): void;
  /** Says something of an agent that beats. */
  report(agent: BeatingAgent, content: BeatContent, settle: Settle): void;
  /** The agent is no longer this client's. */
  remove(agent: BeatingAgent): void;
  /** Try it again later. */
  retryLater(agent: BeatingAgent): void;
}

type Waiter = (error: ReportError) => void;

/** An agent's place in its client. */
export class BeatingAgent implements AgentHandle {
  readonly agentId: string;
  /** What this program has decided. Its streams say it, and note when the server has taken it in. */
  readonly session: AgentClaim = { start: "first" };
  readonly #host: AgentHost;
  readonly #events: { readonly [Name in keyof AgentEvents]: Listeners<AgentEvents[Name]> };
  readonly #waiters = new Set<Waiter>();
  #status: AgentStatus | Unknown | undefined;
  #exhaustion: ExhaustionView | undefined;
  /** What it said last, until that is settled: hearing of it is no news. */
  #reported: WorkingStatus | "exhausted" | undefined;
  #presence: Presence = "left";
  #goodbye: Promise<ReportOutcome> | undefined;
  #refusal: ReportError | undefined;

  constructor(agentId: string, host: AgentHost, onListenerError: OnListenerError) {
    this.agentId = agentId;
    this.#host = host;
    this.#events = {
      status: new Listeners(onListenerError),
      superseded: new Listeners(onListenerError),
      refused: new Listeners(onListenerError),
    };
  }

  get status(): AgentStatus | Unknown | undefined {
    return this.#status;
  }

  get exhaustion(): ExhaustionView | undefined {
    return this.#exhaustion;
  }

  get presence(): Presence {
    return this.#presence;
  }

  idle(options?: WaitOptions): Promise<ReportOutcome> {
    return this.#report("idle", options);
  }

  onCall(options?: WaitOptions): Promise<ReportOutcome> {
    return this.#report("on_call", options);
  }

  busy(options?: WaitOptions): Promise<ReportOutcome> {
    return this.#report("busy", options);
  }

  exhausted({ reason, recoveryAt, retryAfterMs }: ExhaustionReport, options?: WaitOptions): Promise<ReportOutcome> {
    // What no message can carry would break the stream, with all agents that beat on it.
    if (retryAfterMs !== undefined && !(Number.isFinite(retryAfterMs) && retryAfterMs <= FURTHEST_RECOVERY_MS)) {
      const message = `retryAfterMs must be a number of milliseconds, at most 366 days, not ${retryAfterMs}`;
      return quiet(Promise.reject(new RangeError(message)));
    }
    if (recoveryAt !== undefined && Number.isNaN(recoveryAt.getTime())) {
      return quiet(Promise.reject(new RangeError("recoveryAt must be a valid date")));
    }
    // Nor may what no thread can be given: it would be thrown again each time that a worker starts.
    if (!REASONS.has(reason)) {
      return quiet(Promise.reject(new RangeError(`reason is unknown. Use one of ${[...REASONS].join(", ")}.`)));
    }
    const exhausted = {
      reason,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.max(0, retryAfterMs) }),
      ...(recoveryAt === undefined ? {} : { recoveryAt: recoveryAt.getTime() * MICROS_PER_MS }),
    };
    return this.#report({ exhausted }, options);
  }

  leave({ signal }: WaitOptions = {}): Promise<ReportOutcome> {
    if (this.#goodbye !== undefined) return until(this.#goodbye, signal);
    const beat = this.#presence === "beating";
    if (!beat) {
      this.#presence = "left";
      this.#host.remove(this);
      return Promise.resolve("overtaken");
    }
    this.#presence = "leaving";
    const goodbye = this.#ask("leaving").finally(() => {
      this.#goodbye = undefined;
    });
    this.#goodbye = quiet(goodbye);
    return until(goodbye, signal);
  }

  claim(): void {
    if (this.#presence === "beating" || this.#presence === "leaving" || this.#host.closed) return;
    if (this.session.start === "resume") this.session.start = "anew";
    this.#enter();
  }

  on<Name extends keyof AgentEvents>(name: Name, listener: (event: AgentEvents[Name]) => void): () => void {
    return this.#events[name].add(listener);
  }

  /** Takes in what the server says. @param stays whether the agent still beats on its stream */
  receive(beat: BeatView, stays: boolean): void {
    const { status, exhaustion, revision, refusal } = beat;
    if (refusal !== undefined) this.#refused(beat, refusedReport(beat, refusal), failureOf(refusal), stays);
    else if (this.#presence === "refused") this.#presence = "beating";
    if (refusal === undefined) this.#refusal = undefined;
    if (status === undefined || this.#presence === "leaving") return;
    const isNews = (status !== this.#status && status !== this.#reported) || !isSame(exhaustion, this.#exhaustion);
    this.#status = status;
    this.#exhaustion = exhaustion;
    if (isNews) this.#events.status.emit({ agentId: this.agentId, status, exhaustion, revision });
  }

  /** Nobody will answer those who wait, for now or for good. */
  fail(reason: "STREAM_REFUSED" | "CLIENT_CLOSED", message: string, cause?: unknown): void {
    for (const reject of [...this.#waiters]) reject(new ReportError(this.agentId, reason, message, { cause }));
  }

  /** The client says goodbye for all. */
  depart(): void {
    if (this.#presence === "beating") this.#presence = "leaving";
  }

  /** The client has ended, with goodbyes or without. */
  end(): void {
    this.fail("CLIENT_CLOSED", "The client was closed before this was acknowledged.");
    this.#presence = "left";
  }

  #enter(): void {
    this.#host.add(this);
    this.#presence = "beating";
    this.#refusal = undefined;
  }

  #refused(beat: BeatView, error: ReportError, reason: ReportError["reason"], stays: boolean): void {
    if (stays) {
      this.#events.refused.emit(error);
      return;
    }
    const wasEmitted = this.#refusal?.reason === reason && this.#presence !== "beating";
    this.#refusal = error;
    this.#presence = reason === "SESSION_SUPERSEDED" ? "superseded" : "refused";
    if (beat.status === undefined) this.#status = undefined;
    if (this.#presence === "refused") this.#host.retryLater(this);
    if (wasEmitted) return;
    if (this.#presence === "superseded") this.#events.superseded.emit(error);
    else this.#events.refused.emit(error);
  }

  #report(report: Report, { signal }: WaitOptions = {}): Promise<ReportOutcome> {
    const { agentId } = this;
    if (signal?.aborted === true) return quiet(Promise.reject(signal.reason));
    if (this.#host.closed) {
      return quiet(Promise.reject(new ReportError(agentId, "CLIENT_CLOSED", "The client is closed.")));
    }
    if (this.#presence === "superseded") {
      const { status, exhaustion } = this;
      const message = "Another process beats for this agent: claim() takes it back.";
      return quiet(Promise.reject(new ReportError(agentId, "SESSION_SUPERSEDED", message, { status, exhaustion })));
    }
    if (this.#goodbye !== undefined) {
      const goneOrNot = this.#goodbye.catch(() => undefined);
      return quiet(until(goneOrNot, signal).then(() => this.#report(report, signal === undefined ? {} : { signal })));
    }
    try {
      // Of an agent that was refused it is no claim: another process may have it since.
      if (this.#presence === "refused") this.#enter();
      else this.claim();
    } catch (error) {
      return quiet(Promise.reject(error));
    }
    return until(this.#ask(report), signal);
  }

  #ask(content: BeatContent): Promise<ReportOutcome> {
    const { promise, resolve, reject } = Promise.withResolvers<ReportOutcome>();
    const waiter: Waiter = (error) => {
      this.#waiters.delete(waiter);
      reject(error);
    };
    this.#waiters.add(waiter);
    this.#reported = statusOf(content);
    this.#host.report(this, content, (result) => {
      // Before those who wait go on: they are to see what came of it.
      this.#settled(content, result);
      this.#waiters.delete(waiter);
      if (result.kind === "refused") reject(refusedReport(result.beat, result.refusal));
      else resolve(result.kind);
    });
    return promise;
  }

  #settled(content: BeatContent, result: ReportResult): void {
    if (result.kind === "overtaken") return;
    this.#reported = undefined;
    // What it was told it has taken in already.
    if (result.kind === "refused" || result.serverStatus !== undefined) return;
    if (content === "leaving") {
      this.#presence = "left";
      this.#status = "offline";
      this.#host.remove(this);
      return;
    }
    const status = statusOf(content);
    if (this.#status === status) return;
    this.#status = status;
    this.#exhaustion = undefined;
  }
}

function statusOf(content: BeatContent): WorkingStatus | "exhausted" | undefined {
  if (content === "leaving") return undefined;
  return typeof content === "string" ? content : "exhausted";
}

function isSame(one: ExhaustionView | undefined, other: ExhaustionView | undefined): boolean {
  return one?.reason === other?.reason && one?.recoveryAt === other?.recoveryAt;
}

/** A rejection that nobody takes is no fault of the process. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/** The same, unless the signal aborts before. */
function until<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return quiet(promise);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  return quiet(Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", abort)));
}
