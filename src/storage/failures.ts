import { NotFoundError, ValidationError } from "objection";
import { Refusal } from "../domain/errors.ts";

/**
 * What a failure of the database means for the work that met it.
 * - `lost`: the connection or the server went away, or refused this service; whether the statement took effect is
 *   unknown. Everything that is not listed is taken for this.
 * - `contention`: the statement took no effect and may be repeated at once (deadlock, lock or statement timeout, no room).
 * - `damaged`: the statement took no effect, and repeating it at once changes nothing: the fault is in the server's data,
 *   disks, schema or permissions. An operator has to act. One row may be enough, so other statements may succeed.
 * - `defect`: a fault of this program, or a constraint. Repeating the statement changes nothing.
 */
export type FailureKind = "lost" | "contention" | "damaged" | "defect";

/**
 * SQLSTATE classes and codes (https://www.postgresql.org/docs/current/errcodes-appendix.html). The first row that
 * matches counts; a code without a row is `damaged`: the server answered, so the statement took no effect.
 */
const SQLSTATES: readonly (readonly [RegExp, FailureKind])[] = [
  // Statement timeout, or cancelled by an operator. The rest of 57: shutdown, crash, starting up, database dropped.
  [/^57014$/, "contention"],
  // Connection exceptions, a standby, rejected logins, no such database, a commit of which nobody knows the end.
  [/^(08...|25006|28...|3D000|40003|57...)$/, "lost"],
  // Files that cannot be read, corrupt pages, missing permissions (a disk mounted read-only is 42501, too), and a schema
  // that is not the one of this release, as in the middle of a restore.
  [/^(58030|58P01|XX...|42501|42P01|42703|42704|42883|3F000)$/, "damaged"],
  // Transactions that the server ended, deadlocks, locks, no room or memory or connections, plans that a migration made
  // invalid.
  [/^(0A000|25P0[1-4]|26000|40000|40001|40P01|53...|55...|58...|72000)$/, "contention"],
  // Cardinality, data, integrity, cursors, functions, syntax, limits, PL/pgSQL.
  [/^(0[BFLPZ]|2[0-57B-F]|3[3489BF]|4[0-4]|54|P0)...$/, "defect"],
];
const SQLSTATE = /^[0-9A-Z]{5}$/;
/** What a standby says to questions that only a primary can answer: the same as a server that is not there. */
const IN_RECOVERY = "recovery is in progress";
/** What the server says while a database is being replaced by another one. */
const CLOSED = /^database ".*" is not currently accepting connections$/s;
/** Of the operating system. Some have five letters, as an SQLSTATE does. */
const SYSTEM_CODE = /^E[A-Z0-9_]+$/;
const SOCKET_CODES = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENOENT",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
]);
/** node-postgres, its pool, Knex and its pool report these without a code. */
const UNCODED =
  /^Connection terminated|^timeout expired$|^timeout exceeded when trying to connect$|^Query read timeout$|^Knex: Timeout acquiring a connection|^Unable to acquire a connection$|^operation timed out|^aborted$|^Client has encountered a connection error|^Client was closed|^Cannot use a pool after/;
const QUERY_TIMEOUT = "Query read timeout";
/** Calls of these libraries that are wrong whenever they are made. */
const MISUSE =
  /^(Query values must be an array|A query must have either text or a name|Prepared statements must be unique|Client has already been connected|Undefined binding\(s\) detected|The query is empty|circular reference detected)/;

/** A row for which there is no partition, as whoever knows of no new ones yet finds right after a revision gap. */
const CHECK_VIOLATION = "23514";

/** The counter is beyond what can be seen in the log: a moment later it no longer is. */
export class IncompleteLogRead extends Error {
  override readonly name = "IncompleteLogRead";

  constructor() {
    super("the last revision that was given is not in the log of transitions yet");
  }
}

/** No connection was free or ready in time. Nothing was sent. */
export class ConnectionTimeout extends Error {
  override readonly name = "ConnectionTimeout";

  /** @param ms how long it was waited for */
  constructor(ms: number) {
    super(`no connection to the database was free or ready within ${ms / 1_000} s`);
  }
}

/** Raised by `commit_before` (migration 0007). */
const LATE = "HF001";

/** The deadline of a transaction had passed: nothing was changed. */
export function isLate(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === LATE;
}

/** Total: a failure that nobody listed is `lost`, never a defect, since nobody knows what it left behind. */
export function failureKind(error: unknown): FailureKind {
  return knownKind(error) ?? "lost";
}

/** Whether the connection, or the whole database, is away. */
export function isLost(error: unknown): boolean {
  return failureKind(error) === "lost";
}

/** Whether repeating the statement changes nothing, as far as its caller can wait. */
export function isPermanent(kind: FailureKind): boolean {
  return kind === "damaged" || kind === "defect";
}

const LOCK_TIMEOUT = "55P03";

/** Whether the statement waited too long for a lock. */
export function isLockTimeout(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === LOCK_TIMEOUT;
}

/**
 * Whether one row can be the reason, so that the other members of a group may succeed without it: a lock that somebody keeps,
 * a row that cannot be read, and what nobody listed. Not: a database that is away.
 */
export function mayBeOneRow(error: unknown): boolean {
  return knownKind(error) !== "lost";
}

/** Whether this is a listed failure to reach the database. Unlike `failureKind` it guesses nothing. */
export function isLostConnection(error: unknown): boolean {
  return knownKind(error) === "lost";
}

/** Whether the server has not answered a query within the connection's limit. */
export function isQueryTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === QUERY_TIMEOUT;
}

function knownKind(error: unknown): FailureKind | undefined {
  if (!(error instanceof Error)) return undefined;
  // A rule said no, which is not a failure of the database.
  if (error instanceof Refusal) return "defect";
  if (error instanceof IncompleteLogRead) return "contention";
  if (error instanceof ConnectionTimeout) return "lost";
  // Objection wraps what the driver says, and leaves its code inside.
  if ("nativeError" in error) return knownKind(error.nativeError);
  if (error instanceof AggregateError) return kindOfAll(error.errors);
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (SYSTEM_CODE.test(code)) return SOCKET_CODES.has(code) ? "lost" : undefined;
  if (SQLSTATE.test(code)) return kindOfSqlState(code, error);
  if (isMistake(error)) return "defect";
  return UNCODED.test(error.message) ? "lost" : undefined;
}

/** The host has several addresses, and none of them could be reached. */
function kindOfAll(errors: readonly unknown[]): FailureKind | undefined {
  const kinds = new Set(errors.map(knownKind));
  if (kinds.has("lost")) return "lost";
  return kinds.size === 1 && kinds.has("defect") ? "defect" : undefined;
}

function kindOfSqlState(code: string, error: Error): FailureKind {
  if (code === "55000" && (error.message === IN_RECOVERY || CLOSED.test(error.message))) return "lost";
  if (code === CHECK_VIOLATION && violatedConstraint(error) === undefined) return "contention";
  return SQLSTATES.find(([codes]) => codes.test(code))?.[1] ?? "damaged";
}

function isMistake(error: Error): boolean {
  return (
    error instanceof TypeError ||
    error instanceof RangeError ||
    error instanceof ReferenceError ||
    error instanceof SyntaxError ||
    error instanceof ValidationError ||
    error instanceof NotFoundError ||
    MISUSE.test(error.message)
  );
}

/**
 * The violated constraint of a failed statement, if that is what failed. PostgreSQL names it in a field of its own;
 * db-errors looks for it in the text, and finds nothing where a value holds U+2028 or U+2029.
 */
export function violatedConstraint(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("nativeError" in error) return violatedConstraint(error.nativeError);
  return "constraint" in error && typeof error.constraint === "string" ? error.constraint : undefined;
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

/** What a caller gets for a failed statement: a refusal unless the fault is this program's, then the failure itself. */
export function refusalFor(error: unknown): unknown {
  if (error instanceof Refusal || failureKind(error) === "defect") return error;
  return databaseUnavailable(error);
}
