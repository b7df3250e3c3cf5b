import type { AgentStatus } from "../../../../common/contract/enum-names.ts";
import type { Unknown } from "../../../../common/contract/enum-values.ts";
import type { BeatRefusal, BeatView, ExhaustionView } from "../views.ts";

/**
 * Why a report was rejected. Reasons of the service are values of the contract's ErrorReason without their prefix:
 *
 * - `REPORT_OUTDATED`: a service set the status in the meantime, and the agent did not know of it. Now it does.
 * - `SESSION_SUPERSEDED`: another process beats for the agent. This one sends no beats for it until `claim()`.
 * - `AGENT_NOT_FOUND`, `WRONG_CLAW`, `PERMISSION_DENIED`: this claw may not beat for the agent at present.
 * - `INVALID_FIELD`: the report is not valid.
 * - `UNKNOWN`: a reason that this version does not know.
 *
 * Reasons of the client:
 *
 * - `STREAM_REFUSED`: the service rejects the whole stream (`cause` says why: a missing token, for example). The client keeps the
 *   report, and sends it when the service accepts the stream.
 * - `CLIENT_CLOSED`: the client was closed before the acknowledgement. The report may have been applied.
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

/** A rejected report. The message says what to do. */
export class ReportError extends Error {
  override readonly name = "ReportError";
  readonly agentId: string;
  readonly reason: ReportFailure;
  /** The time in milliseconds after which the same report may succeed. Undefined if a retry does not help. */
  readonly retryAfterMs: number | undefined;
  /** The status that the service has for the agent; undefined if it sent none. */
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
