import type { AgentStatus } from "../../../../common/contract/enum-names.ts";
import type { Unknown } from "../../../../common/contract/enum-values.ts";
import { CallError, type CallErrorDetails } from "../connection/call-error.ts";
import type { BeatRefusal, BeatView, ExhaustionView } from "../views.ts";

/**
 * Why a report was rejected. Reasons of the service are values of the contract's ErrorReason without their prefix:
 *
 * - `REPORT_OUTDATED`: a service set the status in the meantime, and the agent did not know of it. Now it does.
 * - `SESSION_SUPERSEDED`: another process beats for the agent. This one sends no beats for it until `claim()`.
 * - `AGENT_NOT_FOUND`, `WRONG_CLAW`, `PERMISSION_DENIED`: this claw may not beat for the agent at present.
 * - `INVALID_FIELD`: the report is not valid. The client rejects some of these before it sends them.
 * - `UNKNOWN`: a reason that this version does not know.
 *
 * Reasons of the client:
 *
 * - `NOT_CONNECTED`: the client has had no connection yet, and got none within `timeoutMs`; `code`, `metadata` and `cause` have the last
 *   error. The client goes on trying, and sends the report when it is connected.
 * - `STREAM_REFUSED`: the service rejects the whole stream; `code`, `metadata` and `cause` say why: a missing token, for example. The
 *   client keeps the report, and sends it when the service accepts the stream.
 * - `HANDLE_REPLACED`: the agent left, and `agent()` was called for it again. Use the new handle.
 * - `CLIENT_CLOSED`: the client was closed before the acknowledgement. The report may have been applied.
 */
export const REPORT_FAILURES = [
  "REPORT_OUTDATED",
  "SESSION_SUPERSEDED",
  "AGENT_NOT_FOUND",
  "WRONG_CLAW",
  "PERMISSION_DENIED",
  "INVALID_FIELD",
  "UNKNOWN",
  "NOT_CONNECTED",
  "STREAM_REFUSED",
  "HANDLE_REPLACED",
  "CLIENT_CLOSED",
] as const;
export type ReportFailure = (typeof REPORT_FAILURES)[number];

const OF_THE_SERVICE = [
  "REPORT_OUTDATED",
  "SESSION_SUPERSEDED",
  "AGENT_NOT_FOUND",
  "WRONG_CLAW",
  "PERMISSION_DENIED",
  "INVALID_FIELD",
] as const satisfies readonly ReportFailure[];

export interface ReportErrorDetails extends CallErrorDetails {
  readonly reason: ReportFailure;
  readonly status?: AgentStatus | Unknown | undefined;
  readonly exhaustion?: ExhaustionView | undefined;
}

/** A rejected report: the CallError of the reports of an agent. The message says what to do. */
export class ReportError extends CallError {
  override readonly name = "ReportError";
  declare readonly reason: ReportFailure;
  readonly agentId: string;
  /** The status that the service has for the agent; undefined if it sent none. */
  readonly status: AgentStatus | Unknown | undefined;
  readonly exhaustion: ExhaustionView | undefined;

  constructor(agentId: string, message: string, details: ReportErrorDetails) {
    super(message, details);
    this.agentId = agentId;
    this.status = details.status;
    this.exhaustion = details.exhaustion;
  }
}

export function refusedReport(beat: BeatView, refusal: BeatRefusal): ReportError {
  const { agentId, status, exhaustion } = beat;
  const { code, message, retryAfterMs } = refusal;
  return new ReportError(agentId, message, { code, reason: failureOf(refusal), retryAfterMs, status, exhaustion });
}

export function failureOf({ reason }: BeatRefusal): ReportFailure {
  return OF_THE_SERVICE.find((known) => known === reason) ?? "UNKNOWN";
}
