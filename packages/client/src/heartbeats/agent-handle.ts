import {
  type AgentStatus,
  EXHAUST_REASONS,
  type ExhaustReason,
  FURTHEST_RECOVERY_MS,
  type WorkingStatus,
} from "../../../../common/contract/enum-names.ts";
import type { Unknown } from "../../../../common/contract/enum-values.ts";
import { MICROS_PER_MS } from "../../../../common/contract/time.ts";
import { Listeners, type OnListenerError } from "../event-listeners.ts";
import type { BeatView, ClawMessageView, ExhaustionView } from "../views.ts";
import type { AgentClaim, BeatContent, Report, ReportResult, Settle } from "./beat-queue.ts";
import { failureOf, ReportError, type ReportErrorDetails, refusedReport } from "./report-error.ts";

const REASONS: ReadonlySet<unknown> = new Set(EXHAUST_REASONS);

/** An exhaustion, as the agent reports it. */
export interface ExhaustionReport {
  readonly reason: ExhaustReason;
  /** The moment of recovery that the provider named. Prefer `retryAfterMs` if it named both: clocks differ. */
  readonly recoveryAt?: Date | undefined;
  /**
   * The time until recovery in milliseconds, at most 366 days. The server chooses the time if both are missing, zero or in the
   * past.
   */
  readonly retryAfterMs?: number | undefined;
}

/** The state of an agent, as the service has it. */
export interface AgentStatusEvent {
  readonly agentId: string;
  readonly status: AgentStatus | Unknown;
  readonly exhaustion: ExhaustionView | undefined;
  readonly revision: bigint;
}

export interface AgentEvents {
  /**
   * The service has another state for the agent than the agent reported: in the first response, and whenever a service changes
   * it.
   */
  readonly status: AgentStatusEvent;
  /**
   * Another process beats for the agent now, or did while this one was cut off or frozen. This client sends no beats for the
   * agent until `claim()`.
   */
  readonly superseded: ReportError;
  /** The service rejected a beat. If it rejects the agent itself, the client tries again each minute. */
  readonly refused: ReportError;
}

/** `applied`: acknowledged. `overtaken`: the agent reported something newer before that. */
export type ReportOutcome = "applied" | "overtaken";

export interface WaitOptions {
  /** Ends the wait with its reason. The report is sent all the same. */
  readonly signal?: AbortSignal;
}

/**
 * What this client does for an agent: it sends beats (`beating`); it sends the goodbye (`leaving`) or has sent it (`left`);
 * another process holds the agent (`superseded`); or the service rejects the agent (`refused`: unknown, of another claw, not
 * permitted).
 */
export type Presence = "beating" | "leaving" | "left" | "superseded" | "refused";

/**
 * One agent of a claw. The client sends beats for it from `HeartbeatClient.agent()` until `leave()`.
 *
 * The client sends each report at once, and repeats it on other connections until the service acknowledges it. Only the newest
 * report counts. The promises resolve with the acknowledgement, and reject with a ReportError if the service rejects the report, or
 * was never reached within `timeoutMs` of the client. Programs may ignore them: a rejection without a handler does not end the
 * process.
 */
export interface AgentHandle {
  readonly agentId: string;
  /** The status on which both sides agree. Undefined before the first response. */
  readonly status: AgentStatus | Unknown | undefined;
  readonly exhaustion: ExhaustionView | undefined;
  readonly presence: Presence;
  /** Reports that the agent is free. */
  idle(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that the agent takes a call. */
  onCall(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that the agent works. */
  busy(options?: WaitOptions): Promise<ReportOutcome>;
  /** Reports that the agent is out of quota or money. `exhaustionFromError` makes the report from a provider's error. */
  exhausted(report: ExhaustionReport, options?: WaitOptions): Promise<ReportOutcome>;
  /** Sends a goodbye, after earlier reports: the agent goes offline at once. A later report brings it back. */
  leave(options?: WaitOptions): Promise<ReportOutcome>;
  /**
   * Takes the agent back from another process that took it over, and sends beats for it again. Does nothing while the agent
   * beats.
   */
  claim(): void;
  /** @returns a function that removes the listener */
  on<Name extends keyof AgentEvents>(name: Name, listener: (event: AgentEvents[Name]) => void): () => void;
}

/** What a BeatingAgent needs of its client. */
export interface AgentHost {
  readonly closed: boolean;
  /** Starts the agent's beats, on a stream that has room. */
  add(agent: BeatingAgent): void;
  /** Sends a report or the goodbye of an agent that beats. */
  report(agent: BeatingAgent, content: BeatContent, settle: Settle): void;
  /** Ends the agent's beats. */
  remove(agent: BeatingAgent): void;
  /** Starts the agent's beats again later. */
  retryLater(agent: BeatingAgent): void;
  /**
   * Calls back once if the client has had no connection yet, and gets none within its timeout.
   *
   * @returns a function that ends the wait
   */
  onNotConnected(callback: (message: string, details: ReportErrorDetails) => void): () => void;
}

type Waiter = (error: ReportError) => void;

const CLOSED = { code: "CANCELLED", reason: "CLIENT_CLOSED" } as const satisfies ReportErrorDetails;

/** The handle of an agent, and its state in the client. */
export class BeatingAgent implements AgentHandle {
  readonly agentId: string;
  /** Why the agent beats, as this program decided. Streams send it, and note when the server accepted it. */
  readonly session: AgentClaim = { start: "first" };
  readonly #host: AgentHost;
  readonly #events: { readonly [Name in keyof AgentEvents]: Listeners<AgentEvents[Name]> };
  readonly #waiters = new Set<Waiter>();
  #status: AgentStatus | Unknown | undefined;
  #exhaustion: ExhaustionView | undefined;
  /** The status of the newest report until it is settled. A response with this status causes no `status` event. */
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
    const problem = problemOf({ reason, recoveryAt, retryAfterMs });
    if (problem !== undefined) {
      const details = {
        code: "INVALID_ARGUMENT",
        reason: "INVALID_FIELD",
        metadata: { field: problem.field },
      } as const;
      return quiet(Promise.reject(new ReportError(this.agentId, problem.message, details)));
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

  /** Takes a message of the server about the agent. @param stays whether the agent still beats on its stream */
  receive(message: ClawMessageView, stays: boolean): void {
    switch (message.kind) {
      case "result":
        this.#takeResult(message, stays);
        return;
      default:
        message.kind satisfies never;
    }
  }

  #takeResult(beat: BeatView, stays: boolean): void {
    const { status, exhaustion, revision, refusal } = beat;
    if (refusal !== undefined) this.#refused(beat, refusedReport(beat, refusal), failureOf(refusal), stays);
    else if (this.#presence === "refused") this.#presence = "beating";
    if (refusal === undefined) this.#refusal = undefined;
    if (status === undefined || this.#presence === "leaving") return;
    const isChange = (status !== this.#status && status !== this.#reported) || !isSame(exhaustion, this.#exhaustion);
    this.#status = status;
    this.#exhaustion = exhaustion;
    if (isChange) this.#events.status.emit({ agentId: this.agentId, status, exhaustion, revision });
  }

  /** Rejects the promises of all open reports. */
  fail(message: string, details: ReportErrorDetails): void {
    for (const reject of [...this.#waiters]) reject(new ReportError(this.agentId, message, details));
  }

  /** The client sends the goodbye of this agent. */
  depart(): void {
    if (this.#presence === "beating") this.#presence = "leaving";
  }

  /** The client is closed. */
  end(): void {
    this.fail("The client was closed before this was acknowledged.", CLOSED);
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
      return quiet(Promise.reject(new ReportError(agentId, "The client is closed.", CLOSED)));
    }
    if (this.#presence === "superseded") {
      const { status, exhaustion } = this;
      const message = "Another process beats for this agent: claim() takes it back.";
      const details = { code: "ABORTED", reason: "SESSION_SUPERSEDED", status, exhaustion } as const;
      return quiet(Promise.reject(new ReportError(agentId, message, details)));
    }
    if (this.#goodbye !== undefined) {
      const goneOrNot = this.#goodbye.catch(() => undefined);
      return quiet(until(goneOrNot, signal).then(() => this.#report(report, signal === undefined ? {} : { signal })));
    }
    try {
      // For a rejected agent this is no claim: another process may hold it now.
      if (this.#presence === "refused") this.#enter();
      else this.claim();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const details = { code: "FAILED_PRECONDITION", reason: "HANDLE_REPLACED", cause: error } as const;
      return quiet(Promise.reject(new ReportError(agentId, message, details)));
    }
    return until(this.#ask(report), signal);
  }

  #ask(content: BeatContent): Promise<ReportOutcome> {
    const { promise, resolve, reject } = Promise.withResolvers<ReportOutcome>();
    const waiter: Waiter = (error) => {
      forget();
      reject(error);
    };
    const endWait = this.#host.onNotConnected((message, details) => {
      waiter(new ReportError(this.agentId, message, details));
    });
    const forget = (): void => {
      endWait();
      this.#waiters.delete(waiter);
    };
    this.#waiters.add(waiter);
    this.#reported = statusOf(content);
    this.#host.report(this, content, (result) => {
      // Before the promise resolves, so that its caller sees the new state.
      this.#settled(content, result);
      forget();
      if (result.kind === "refused") reject(refusedReport(result.beat, result.refusal));
      else resolve(result.kind);
    });
    return promise;
  }

  #settled(content: BeatContent, result: ReportResult): void {
    if (result.kind === "overtaken") return;
    this.#reported = undefined;
    // receive() has applied the status of the server already.
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
  return one?.reason === other?.reason && one?.recoveryAt?.getTime() === other?.recoveryAt?.getTime();
}

/** What no message can carry, or no thread: it would fail for all agents of the stream, again and again. */
function problemOf({ reason, recoveryAt, retryAfterMs }: ExhaustionReport) {
  if (retryAfterMs !== undefined && !(Number.isFinite(retryAfterMs) && retryAfterMs <= FURTHEST_RECOVERY_MS)) {
    const message = `retryAfterMs must be a number of milliseconds, at most 366 days, not ${retryAfterMs}`;
    return { field: "retryAfterMs", message };
  }
  if (recoveryAt !== undefined && Number.isNaN(recoveryAt.getTime())) {
    return { field: "recoveryAt", message: "recoveryAt must be a valid date" };
  }
  if (!REASONS.has(reason)) {
    return { field: "reason", message: `reason is unknown. Use one of ${[...REASONS].join(", ")}.` };
  }
  return undefined;
}

/** Keeps a rejection without a handler from ending the process. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/** The same promise, unless the signal aborts first. */
function until<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return quiet(promise);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  return quiet(Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", abort)));
}
