import { type ReportErrorDetails as CurrentDetails, ReportError as CurrentError } from "harborforge-agents-client";
import type { ExhaustionView } from "./former-views.ts";

export type ReportFailure = Exclude<CurrentError["reason"], "NOT_CONNECTED" | "HANDLE_REPLACED">;

const MICROS_PER_MS = 1_000;

type Status = CurrentError["status"];

/** A rejected report, as in version 0.1: no CallError, and with an exhaustion in microseconds. */
export class ReportError extends Error {
  override readonly name = "ReportError";
  readonly agentId: string;
  readonly reason: ReportFailure;
  readonly retryAfterMs: number | undefined;
  readonly status: Status;
  readonly exhaustion: ExhaustionView | undefined;

  constructor(
    agentId: string,
    reason: ReportFailure,
    message: string,
    details: Pick<CurrentDetails, "retryAfterMs" | "status" | "cause"> & {
      exhaustion?: ExhaustionView | undefined;
    } = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.agentId = agentId;
    this.reason = reason;
    this.retryAfterMs = details.retryAfterMs;
    this.status = details.status;
    this.exhaustion = details.exhaustion;
  }
}

export function formerReport({
  agentId,
  reason,
  message,
  retryAfterMs,
  status,
  exhaustion,
  cause,
}: CurrentError): ReportError {
  // A client without a timeout has no other reasons.
  const known = reason === "NOT_CONNECTED" || reason === "HANDLE_REPLACED" ? "UNKNOWN" : reason;
  const details = { retryAfterMs, status, exhaustion: formerExhaustion(exhaustion), cause };
  return new ReportError(agentId, known, message, details);
}

/** What version 0.1 rejected with: a RangeError for what the client itself rejects. */
export function formerError(error: unknown): unknown {
  if (!(error instanceof CurrentError)) return error;
  const { reason, message, metadata } = error;
  if (reason === "HANDLE_REPLACED" || metadata.field !== undefined) return new RangeError(message, { cause: error });
  return formerReport(error);
}

export function formerExhaustion(exhaustion: CurrentError["exhaustion"]): ExhaustionView | undefined {
  if (exhaustion === undefined) return undefined;
  const { reason, recoveryAt } = exhaustion;
  return { reason, recoveryAt: recoveryAt === undefined ? undefined : recoveryAt.getTime() * MICROS_PER_MS };
}
