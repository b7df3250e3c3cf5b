import type { Unknown } from "../../../../src/contract/enums.ts";
import type { AgentStatus } from "../../../../src/contract/words.ts";
import type { BeatRefusal, BeatView, ExhaustionView } from "../views.ts";

/**
 * Why a report was not taken. Those of the service are values of the contract's ErrorReason without their prefix:
 *
 * - `REPORT_OUTDATED`: a service set the status meanwhile, and the agent had not heard of it. It knows now.
 * - `SESSION_SUPERSEDED`: another process beats for the agent. This one leaves it alone until `claim()`.
 * - `AGENT_NOT_FOUND`, `WRONG_CLAW`, `PERMISSION_DENIED`: it is not this claw's to beat for, at present.
 * - `INVALID_FIELD`: what was reported is not allowed.
 * - `UNKNOWN`: a reason that this version does not know.
 *
 * Those of the client:
 *
 * - `STREAM_REFUSED`: the service refuses the whole stream (`cause` says why: a missing token, for example). The report is
 *   kept, and sent when the service changes its mind.
 * - `CLIENT_CLOSED`: the client was closed before the report was acknowledged. It may have been applied.
 */
export type ReportFailure =
  | "REPORT_OUTDATED"
  | "SESSION_SUPERSEDED"
  | "AGENT_NOT_FOUND"
  | "WRONG_CLAW"
  | "PERMISSION_DENIED"
  | "INVALID_FIELD"
  | "UNKNOWN"
  | "STREAM_REFUSED"
  | "CLIENT_CLOSED";

const OF_THE_SERVICE = [
  "REPORT_OUTDATED",
  "SESSION_SUPERSEDED",
  "AGENT_NOT_FOUND",
  "WRONG_CLAW",
  "PERMISSION_DENIED",
  "INVALID_FIELD",
] as const satisfies readonly ReportFailure[];

export interface ReportErrorDetails {
  readonly retryAfterMs?: number | undefined;
  readonly status?: AgentStatus | Unknown | undefined;
  readonly exhaustion?: ExhaustionView | undefined;
  readonly cause?: unknown;
}

/** A report that was not taken. The message says what to do. */
export class ReportError extends Error {
  override readonly name = "ReportError";
  readonly agentId: string;
  readonly reason: ReportFailure;
  /** The time in milliseconds after which the same report may have success. Undefined where repeating does not help. */
  readonly retryAfterMs: number | undefined;
  /** What the agent is to the service; undefined where it did not say. */
  readonly status: AgentStatus | Unknown | undefined;
  readonly exhaustion: ExhaustionView | undefined;

  constructor(agentId: string, reason: ReportFailure, message: string, details: ReportErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.agentId = agentId;
    this.reason = reason;
    this.retryAfterMs = details.retryAfterMs;
    this.status = details.status;
    this.exhaustion = details.exhaustion;
  }
}

export function refusedReport({ agentId, status, exhaustion }: BeatView, refusal: BeatRefusal): ReportError {
  const { message, retryAfterMs } = refusal;
  return new ReportError(agentId, failureOf(refusal), message, { retryAfterMs, status, exhaustion });
}

export function failureOf({ reason }: BeatRefusal): ReportFailure {
  return OF_THE_SERVICE.find((known) => known === reason) ?? "UNKNOWN";
}
