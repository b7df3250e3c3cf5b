import type { AgentHandle, AgentStatusEvent, ReportError } from "harborforge-agents-client";
import { type ActivityLimits, AgentActivity, type ShownStatus } from "../activity/agent-activity.ts";
import type { Refusal, Signal } from "../activity/signal.ts";
import { messageOf, type PluginLog } from "../gateway/log.ts";

/** What a reporter needs of its surroundings. */
export interface ReporterContext {
  readonly limits: ActivityLimits;
  readonly log: PluginLog;
  /** The activity that an earlier copy of the plugin saw in this process. */
  readonly earlier: AgentActivity | undefined;
  /** The exhaustion that the agent's accounts show. */
  readonly accounts: (gatewayId: string, now: number) => Refusal | undefined;
  /** The service rejects the agent. */
  readonly onRejected: (reporter: AgentReporter, error: ReportError) => void;
}

/** For so long the plugin leaves a status that a service set, so that the work can arrive, in milliseconds. As long as a default hold. */
const CLAIM_MS = 60_000;
/** Another process may have ended meanwhile: then nobody beats for the agent. */
const RECLAIM_AFTER_MS = 300_000;
/** Smaller differences of a deadline are rounding. */
const SAME_DEADLINE_MS = 2_000;

/** Reports one agent's status when it changes. */
export class AgentReporter {
  readonly gatewayId: string;
  readonly handle: AgentHandle;
  readonly activity: AgentActivity;
  readonly #context: ReporterContext;
  readonly #undo: (() => void)[] = [];
  #reported: ShownStatus | undefined;
  /** A status that a service gave the agent and the gateway does not show. */
  #claim: { readonly at: number } | undefined;
  #supersededAt: number | undefined;
  #lastRejection: ReportError | undefined;

  constructor(gatewayId: string, handle: AgentHandle, context: ReporterContext) {
    this.gatewayId = gatewayId;
    this.handle = handle;
    this.#context = context;
    this.activity = context.earlier ?? new AgentActivity(context.limits);
    this.activity.limits = context.limits;
    this.#undo.push(
      handle.on("status", (event) => this.#onStatus(event, Date.now())),
      handle.on("superseded", (error) => this.#onSuperseded(error)),
      handle.on("refused", (error) => {
        this.#lastRejection = error;
        context.onRejected(this, error);
      }),
    );
  }

  get reported(): ShownStatus | undefined {
    return this.#reported;
  }

  /** The newest rejection by the service. */
  get lastRejection(): ReportError | undefined {
    return this.#lastRejection;
  }

  apply(signal: Signal, now: number): void {
    this.activity.apply(signal, now, () => this.#context.accounts(this.gatewayId, now));
    this.update(now);
  }

  /** Reports the status if it changed. Called after each signal, and each second for what time alone changes. */
  update(now: number): void {
    if (this.#supersededAt !== undefined) {
      if (now - this.#supersededAt < RECLAIM_AFTER_MS) return;
      this.#supersededAt = undefined;
      this.#reported = undefined;
      this.handle.claim();
    }
    // The client tries a rejected agent again each minute. A report would try it at once, each second.
    if (this.handle.presence === "refused") return;
    for (const runId of this.activity.dropSilent(now)) {
      const facts = { agentId: this.handle.agentId, runId };
      this.#context.log.write("run.silent", "a silent run does not count any more", facts);
    }
    const shown = this.activity.statusAt(now);
    const claim = this.#claim;
    const isClaimOver = claim !== undefined && now - claim.at >= CLAIM_MS;
    // The work of a claim may still arrive.
    if (claim !== undefined && !isClaimOver && shown.status === "idle") return;
    if (!isClaimOver && isSame(shown, this.#reported)) return;
    this.#claim = undefined;
    this.#reported = shown;
    this.#report(shown, now).catch((error: ReportError) => this.#onFailed(shown, error));
  }

  /** Sends a goodbye: the agent is not in the gateway any more. */
  leave(): void {
    for (const undo of this.#undo) undo();
    void this.handle.leave();
  }

  async #report(shown: ShownStatus, now: number): Promise<unknown> {
    switch (shown.status) {
      case "idle":
        return this.handle.idle();
      case "busy":
        return this.handle.busy();
      case "on_call":
        return this.handle.onCall();
      case "exhausted": {
        const { reason, until } = shown;
        return this.handle.exhausted({
          reason,
          ...(until === undefined ? {} : { retryAfterMs: Math.max(1, until - now) }),
        });
      }
    }
  }

  #onStatus({ status }: AgentStatusEvent, now: number): void {
    if (status === "idle") {
      this.activity.recovered();
      // The service recovers the agent by itself: no report is due.
      if (this.#reported?.status === "exhausted" && this.activity.statusAt(now).status === "idle") {
        this.#reported = { status: "idle" };
      }
    }
    const reported = this.#reported?.status;
    const isClaim = isWorking(status) && isWorking(reported) && status !== reported;
    this.#claim = isClaim ? { at: now } : undefined;
  }

  #onSuperseded(error: ReportError): void {
    this.#supersededAt = Date.now();
    this.#lastRejection = error;
    this.#context.log.write("agent.superseded", "another process reports for this agent", {
      agentId: this.handle.agentId,
      action: "stop the other gateway, or give it another claw",
    });
  }

  #onFailed(shown: ShownStatus, error: ReportError): void {
    const reason: string = error.reason;
    // The client keeps these, and sends them when it can. The events above tell of the others.
    if (reason === "NOT_CONNECTED" || reason === "STREAM_REFUSED" || reason === "CLIENT_CLOSED") return;
    this.#lastRejection = error;
    if (reason === "REPORT_OUTDATED" || reason === "SESSION_SUPERSEDED") return;
    if (reason === "AGENT_NOT_FOUND" || reason === "WRONG_CLAW" || reason === "PERMISSION_DENIED") {
      // The client tries the agent again each minute. It then needs this report.
      if (this.#reported === shown) this.#reported = undefined;
      return;
    }
    const facts = { agentId: this.handle.agentId, status: shown.status, reason, error: messageOf(error) };
    this.#context.log.write("agent.report_rejected", "the service rejected a report", facts);
  }
}

/** An exhaustion is the provider's or a service's word: no status of the gateway corrects it. */
function isWorking(status: AgentStatusEvent["status"] | undefined): boolean {
  return status === "idle" || status === "busy" || status === "on_call";
}

function isSame(one: ShownStatus, other: ShownStatus | undefined): boolean {
  if (one.status !== other?.status) return false;
  if (one.status !== "exhausted" || other.status !== "exhausted") return true;
  if (one.reason !== other.reason || (one.until === undefined) !== (other.until === undefined)) return false;
  return Math.abs((one.until ?? 0) - (other.until ?? 0)) < SAME_DEADLINE_MS;
}
