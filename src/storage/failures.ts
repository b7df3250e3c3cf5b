import { NotFoundError, ValidationError } from "objection";
import { Refusal } from "../domain/errors.ts";
import { UnusableDatabase } from "./unusable-database.ts";

/**
 * What a failure of the database means for the work at hand.
 * - `lost`: the connection or the server is unavailable, or rejected this service. The statement may have taken effect.
 * Unknown errors have this kind.
 * - `contention`: the statement took no effect and may be repeated at once (deadlock, lock or statement timeout, no
 * room).
 * - `damaged`: the statement took no effect, and a repetition at once fails again. The fault is in the server's data,
 * disks, schema or permissions, and needs an operator. It may affect one row only.
 * - `defect`: a fault of this program, or a violated constraint. A repetition fails again.
 */
export type FailureKind = "lost" | "contention" | "damaged" | "defect";

/**
 * SQLSTATE classes and codes (https://www.postgresql.org/docs/current/errcodes-appendix.html). The first matching row
 * counts. A code without a row is `damaged`: the server answered, so the statement took no effect.
 */
const SQLSTATES: readonly (readonly [RegExp, FailureKind])[] = [
  // Statement timeout, or cancelled by an operator. Other codes of class 57: shutdown, crash, startup, dropped
  // database.
  [/^57014$/, "contention"],
  // Connection exceptions, a standby, rejected logins, a missing database, a commit with unknown result.
  [/^(08...|25006|28...|3D000|40003|57...)$/, "lost"],
  // Unreadable files, corrupt pages, missing permissions (also 42501 on a read-only disk), and a schema of another
  // release, e.g. during a restore.
  [/^(58030|58P01|XX...|42501|42P01|42703|42704|42883|3F000)$/, "damaged"],
  // Transactions that the server ended, deadlocks, locks, exhausted disks, memory or connections, plans that a
  // migration made invalid.
  [/^(0A000|25P0[1-4]|26000|40000|40001|40P01|53...|55...|58...|72000)$/, "contention"],
  // Cardinality, data, integrity, cursors, functions, syntax, limits, PL/pgSQL.
  [/^(0[BFLPZ]|2[0-57B-F]|3[3489BF]|4[0-4]|54|P0)...$/, "defect"],
];
const SQLSTATE = /^[0-9A-Z]{5}$/;
/** The message of a standby to queries for a primary: the same as an unreachable server. */
const IN_RECOVERY = "recovery is in progress";
/** The message of the server while a database is being replaced. */
const CLOSED = /^database ".*" is not currently accepting connections$/s;
/** Codes of the operating system. Some have five letters like an SQLSTATE. */
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
/** Errors of node-postgres, of Knex and of their pools that have no code. */
const UNCODED =
  /^Connection terminated|^timeout expired$|^timeout exceeded when trying to connect$|^Query read timeout$|^Knex: Timeout acquiring a connection|^Unable to acquire a connection$|^operation timed out|^aborted$|^Client has encountered a connection error|^Client was closed|^Cannot use a pool after/;
const QUERY_TIMEOUT = "Query read timeout";
/** Misuse of these libraries: a repetition fails again. */
const MISUSE =
  /^(Query values must be an array|A query must have either text or a name|Prepared statements must be unique|Client has already been connected|Undefined binding\(s\) detected|The query is empty|circular reference detected)/;

/** The SQLSTATE of an error, or the code of the operating system; `_OTHER` for others, as OpenTelemetry names them. */
export function failureCode(error: unknown): string {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  return SQLSTATE.test(code) || SYSTEM_CODE.test(code) ? code : "_OTHER";
}

/**
 * Also raised for a row without a partition. A session that does not know the newest partitions gets it right after a
 * revision gap.
 */
const CHECK_VIOLATION = "23514";

/** The statement saw the counter but not the newest rows of the log. A retry a moment later sees both. */
export class IncompleteLogRead extends Error {
  override readonly name = "IncompleteLogRead";

  constructor() {
    super("the newest revision is not visible in the log of transitions yet");
  }
}

/** No connection was ready in time. Nothing was sent. */
export class ConnectionTimeout extends Error {
  override readonly name = "ConnectionTimeout";

  /** @param ms how long the caller waited */
  constructor(ms: number) {
    super(`no connection to the database was ready within ${ms / 1_000} s`);
  }
}

/** Raised by `commit_before` (migration 0007). */
const LATE = "HF001";

/** Whether the deadline of a transaction had passed. Nothing was changed. */
export function isLate(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === LATE;
}

/** The kind of a failure. An unknown one is `lost`, never a defect, because the statement may have taken effect. */
export function failureKind(error: unknown): FailureKind {
  return knownKind(error) ?? "lost";
}

/** Whether the connection, or the whole database, is unavailable. */
export function isLost(error: unknown): boolean {
  return failureKind(error) === "lost";
}

/** Whether a repetition fails again for as long as a caller can wait. */
export function isPermanent(kind: FailureKind): boolean {
  return kind === "damaged" || kind === "defect";
}

const LOCK_TIMEOUT = "55P03";

/** Whether the statement waited too long for a lock. */
export function isLockTimeout(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === LOCK_TIMEOUT;
}

/**
 * Whether a single row may be the cause, so that the other members of a group may succeed: a lock, an unreadable row,
 * or an unknown error. Not an unavailable database.
 */
export function mayBeOneRow(error: unknown): boolean {
  return knownKind(error) !== "lost";
}

/** Whether this is a known failure to reach the database. Unlike `failureKind` it does not guess. */
export function isLostConnection(error: unknown): boolean {
  return knownKind(error) === "lost";
}

/** Whether a query timed out at the connection. */
export function isQueryTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === QUERY_TIMEOUT;
}

/** What is wrong with the database, for SQLSTATEs that an operator has to act on. */
const FAULTS: Readonly<Record<string, string>> = {
  "25006": "it is read-only",
  "28000": "it rejects the login",
  "28P01": "it rejects the login",
  "3D000": "it does not exist",
  "42501": "it denies permission",
  "53100": "its disk is full",
  "53200": "it is out of memory",
  "53300": "it has no free connection",
  "58030": "its disk has errors",
  "57P03": "it starts or stops",
  XX001: "it has corrupt pages",
  XX002: "it has corrupt indexes",
};

/**
 * What is wrong with the database, for people who may not see its messages: words for known faults, and the SQLSTATE or the
 * system's code, e.g. `its disk is full (SQLSTATE 53100)`. Undefined if the error has no code.
 */
export function faultText(error: unknown): string | undefined {
  return textOfCode(codeOf(error));
}

/** The same for a code alone. */
export function textOfCode(code: string): string;
export function textOfCode(code: string | undefined): string | undefined;
export function textOfCode(code: string | undefined): string | undefined {
  if (code === undefined || SYSTEM_CODE.test(code)) return code;
  const words = FAULTS[code];
  return words === undefined ? `SQLSTATE ${code}` : `${words} (SQLSTATE ${code})`;
}

/** The SQLSTATE of a statement or a login that the server rejected. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = codeOf(error);
  return code === undefined || SYSTEM_CODE.test(code) ? undefined : code;
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("nativeError" in error) return codeOf(error.nativeError);
  if (error instanceof AggregateError) return error.errors.map(codeOf).find((code) => code !== undefined);
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return SYSTEM_CODE.test(code) || SQLSTATE.test(code) ? code : undefined;
}

function knownKind(error: unknown): FailureKind | undefined {
  if (!(error instanceof Error)) return undefined;
  // A rule rejected the request: not a failure of the database.
  if (error instanceof Refusal) return "defect";
  if (error instanceof IncompleteLogRead) return "contention";
  if (error instanceof ConnectionTimeout || error instanceof UnusableDatabase) return "lost";
  // Objection wraps the driver's error.
  if ("nativeError" in error) return knownKind(error.nativeError);
  if (error instanceof AggregateError) return kindOfAll(error.errors);
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (SYSTEM_CODE.test(code)) return SOCKET_CODES.has(code) ? "lost" : undefined;
  if (SQLSTATE.test(code)) return kindOfSqlState(code, error);
  if (isMistake(error)) return "defect";
  return UNCODED.test(error.message) ? "lost" : undefined;
}

/** The host has several addresses, and none is reachable. */
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
 * The violated constraint of a failed statement; undefined for other failures. PostgreSQL names it in a field of its
 * own. db-errors searches the text instead, and misses it if a value contains U+2028 or U+2029.
 */
export function violatedConstraint(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("nativeError" in error) return violatedConstraint(error.nativeError);
  return "constraint" in error && typeof error.constraint === "string" ? error.constraint : undefined;
}

const RETRY_AFTER_MS = 1_000;

/**
 * Rejects a call because this replica cannot reach the database. Another replica may.
 *
 * @param retryAfterMs the delay before a retry, in milliseconds
 */
export function cutOffFromDatabase(retryAfterMs: number): Refusal {
  return new Refusal(
    "DATABASE_UNAVAILABLE",
    "This replica cannot reach the database at the moment. Try another replica.",
    {
      retryAfterMs: Math.min(RETRY_AFTER_MS, Math.ceil(retryAfterMs)),
    },
  );
}

/** @param outcomeUnknown whether the change may have taken effect */
export function databaseUnavailable(cause: unknown, outcomeUnknown = false): Refusal {
  const message = outcomeUnknown
    ? "The database became unavailable during the change. The change may or may not have taken effect. Repeat it: with a request_id this is safe."
    : "The database is unavailable at the moment. Try again.";
  return new Refusal("DATABASE_UNAVAILABLE", message, { retryAfterMs: RETRY_AFTER_MS, cause });
}

/** The error for the caller of a failed statement: a refusal, or the failure itself if this program is at fault. */
export function refusalFor(error: unknown): unknown {
  if (error instanceof Refusal || failureKind(error) === "defect") return error;
  return databaseUnavailable(error);
}
