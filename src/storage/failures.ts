import { Refusal } from "../domain/errors.ts";

/** SQLSTATE classes and codes: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const LOST_CONNECTION = /^(08...|57P0[1-5]|25006|40003)$/;
/** What a standby says to questions that only a primary can answer: the same as a server that is not there. */
const IN_RECOVERY = "recovery is in progress";
/** What the server says while a database is being replaced by another one: closed to connections, or gone for a moment. */
const CLOSED = /^database ".*" is not currently accepting connections$/;
const NO_DATABASE = "3D000";
const CONTENTION = new Set(["40001", "40P01", "55P03", "25P03", "57014"]);
/** No room, no memory, no file: of the server, and for a while. And plans that a migration made invalid. */
const PASSING = /^(53...|58...|26000|0A000)$/;
const SOCKET_CODES = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENOENT",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);
/** node-postgres and Knex report these without a code. */
const UNCODED =
  /Connection terminated|Knex: Timeout acquiring a connection|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|Cannot use a pool after|Client was closed/;

/** A row for which there is no partition, as whoever knows of no new ones yet finds right after a jump of revisions. */
const CHECK_VIOLATION = "23514";

/** The counter is beyond what can be seen in the log: a moment later it no longer is. */
export class LogNotSeenWhole extends Error {
  override readonly name = "LogNotSeenWhole";

  constructor() {
    super("the last revision that was given is not in the log of transitions yet");
  }
}

/**
 * What a failure of the database means for the work that met it.
 * - `lost`: the connection or the server went away; whether the statement took effect is unknown.
 * - `contention`: it took no effect and may be repeated at once (deadlock, lock or statement timeout).
 * - `defect`: repeating it changes nothing.
 */
export type FailureKind = "lost" | "contention" | "defect";

export function failureKind(error: unknown): FailureKind {
  if (!(error instanceof Error)) return "defect";
  if (error instanceof LogNotSeenWhole) return "contention";
  // Objection wraps what the driver says, and leaves its code inside.
  if ("nativeError" in error) return failureKind(error.nativeError);
  const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
  if (code === undefined) {
    if (error instanceof AggregateError)
      return error.errors.some((inner) => failureKind(inner) === "lost") ? "lost" : "defect";
    return UNCODED.test(error.message) ? "lost" : "defect";
  }
  if (code === "55000" && (error.message === IN_RECOVERY || CLOSED.test(error.message))) return "lost";
  if (code === NO_DATABASE) return "lost";
  if (code === CHECK_VIOLATION && violatedConstraint(error) === undefined) return "contention";
  if (LOST_CONNECTION.test(code) || SOCKET_CODES.has(code)) return "lost";
  return CONTENTION.has(code) || PASSING.test(code) ? "contention" : "defect";
}

/** The violated constraint of a failed statement, if that is what failed. */
export function violatedConstraint(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("constraint" in error)) return undefined;
  return typeof error.constraint === "string" ? error.constraint : undefined;
}

const RETRY_AFTER_MS = 1_000;

/** This replica cannot reach the database; another one may. @param retryAfterMs when to try, elsewhere */
export function cutOffFromDatabase(retryAfterMs: number): Refusal {
  return new Refusal("DATABASE_UNAVAILABLE", "This replica cannot reach the database at the moment. Try another one.", {
    retryAfterMs: Math.min(RETRY_AFTER_MS, Math.ceil(retryAfterMs)),
  });
}

export function databaseUnavailable(cause: unknown, outcomeUnknown = false): Refusal {
  const message = outcomeUnknown
    ? "The database went away while the change was being made; it may or may not have taken effect. Repeat it: with a request_id a repetition is safe."
    : "The database cannot be reached at the moment. Try again shortly.";
  return new Refusal("DATABASE_UNAVAILABLE", message, { retryAfterMs: RETRY_AFTER_MS, cause });
}

/** What a caller gets for a failed statement: a refusal where trying again may help, the failure itself otherwise. */
export function refusalFor(error: unknown): unknown {
  if (error instanceof Refusal || failureKind(error) === "defect") return error;
  return databaseUnavailable(error);
}
