import { createRequire } from "node:module";
import { wrapError } from "db-errors";
import { DatabaseError } from "pg-protocol";
import type { FailureKind } from "../../src/storage/failures.ts";

/** Part of every message that a server could have sent. No caller may read it. */
export const INTERNAL_TEXT = "internal text of the database";

export interface RaisedError {
  readonly title: string;
  readonly kind: FailureKind;
  make(): unknown;
}

/** All SQLSTATEs of PostgreSQL's appendix A. */
export const SQLSTATES: ReadonlySet<string> = readSqlStates();

function readSqlStates(): ReadonlySet<string> {
  const { postgres }: { postgres: Set<string> } = createRequire(import.meta.url)("db-errors/lib/errorCodes");
  // Later releases of PostgreSQL added some.
  return new Set([...postgres, "25P04", "57P05", "58P03"].filter((code) => code.length === 5));
}

/** The error that pg throws for an ErrorResponse: every field is there, most are undefined. */
export function serverError(code: string, fields: { message?: string; constraint?: string; detail?: string } = {}) {
  const error = new DatabaseError(fields.message ?? `${INTERNAL_TEXT} ${code}`, 100, "error");
  return Object.assign(error, {
    severity: "ERROR",
    code,
    detail: fields.detail,
    constraint: fields.constraint,
    table: undefined,
    internalQuery: undefined,
  });
}

function nodeError(code: string, message = `connect ${code} 10.1.2.3:5432`): Error {
  return Object.assign(new Error(message), { code });
}

/** Each class, by its first two characters, or a code of another kind than the rest of its class. */
const KINDS: Readonly<Record<FailureKind, string>> = {
  lost: "08 25006 28 3D 40003 57",
  contention: "0A 25P01 25P02 25P03 25P04 26 40000 40001 40P01 53 55 57014 58 72",
  damaged: "00 01 02 03 09 3F 42501 42P01 42703 42704 42883 58030 58P01 F0 HV XX",
  defect: "0B 0F 0L 0P 0Z 20 21 22 23 24 25 27 2B 2D 2F 34 38 39 3B 40002 42 44 54 P0",
};

/** The kind of an SQLSTATE by this table. */
export function kindOfSqlState(code: string): FailureKind | undefined {
  for (const place of [5, 2]) {
    for (const kind of ["lost", "contention", "damaged", "defect"] as const) {
      if (KINDS[kind].split(" ").includes(code.slice(0, place))) return kind;
    }
  }
  return undefined;
}

/** Errors without a code, by the file that throws them. */
const UNCODED: readonly (readonly [source: string, kind: FailureKind, ...messages: string[]])[] = [
  [
    "pg/lib/client.js",
    "lost",
    "timeout expired",
    "Connection terminated",
    "Connection terminated unexpectedly",
    "Query read timeout",
    "Client has encountered a connection error and is not queryable",
    "Client was closed and is not queryable",
    "Received unexpected rowDescription message from backend.",
    "Received unexpected dataRow message from backend.",
    "Received unexpected portalSuspended message from backend.",
    "Received unexpected emptyQuery message from backend.",
    "Received unexpected commandComplete message from backend.",
    "Received unexpected parseComplete message from backend.",
    "Received unexpected copyInResponse message from backend.",
    "Received unexpected copyData message from backend.",
  ],
  ["pg/lib/client.js", "defect", "Client has already been connected. You cannot reuse a client."],
  [
    "pg/lib/query.js",
    "defect",
    "A query must have either text or a name. Supplying neither is unsupported.",
    "Prepared statements must be unique - 'a' was used for a different statement",
    "Query values must be an array",
  ],
  [
    "pg/lib/connection.js",
    "lost",
    "The server does not support SSL connections",
    "There was an error establishing an SSL connection",
  ],
  [
    "pg/lib/crypto/sasl.js",
    "lost",
    "SASL: Only mechanism(s) SCRAM-SHA-256 are supported",
    "SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string",
    "SASL: SCRAM-SERVER-FIRST-MESSAGE: server nonce does not start with client nonce",
    "SASL: SCRAM-SERVER-FINAL-MESSAGE: server signature does not match",
    'SASL: SCRAM-SERVER-FINAL-MESSAGE: server returned error: "invalid-proof"',
    "SASL channel binding: unknown hash when parsing public certificate MIIB",
  ],
  ["pg-protocol/dist/parser.js", "lost", "received invalid response: 48", "Binary mode not supported yet"],
  [
    "pg-pool/index.js",
    "lost",
    "timeout exceeded when trying to connect",
    "Connection terminated due to connection timeout",
    "Cannot use a pool after calling end on the pool",
    "Called end on pool more than once",
    "Release called on client which has already been released to the pool.",
  ],
  [
    "knex/lib",
    "lost",
    "Unable to acquire a connection",
    "Knex: Timeout acquiring a connection. The pool is probably full. Are you missing a .transacting(trx) call?",
    "operation timed out",
    "Transaction query already complete, run with DEBUG=knex:tx for more info",
    "Transaction rejected with non-error: undefined",
  ],
  [
    "knex/lib",
    "defect",
    "The query is empty",
    "Undefined binding(s) detected when compiling SELECT. Undefined column(s): [a]",
  ],
  ["tarn/dist", "lost", "aborted", "operation timed out for an unknown reason"],
];

const SYSTEM_CODES = [
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
  "EADDRNOTAVAIL",
  "EACCES",
  "EPERM",
  "EBUSY",
  "EMFILE",
  "ENFILE",
  "ENOBUFS",
  "ENOENT",
  "EPROTO",
];

const TLS_CODES = [
  "CERT_HAS_EXPIRED",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "ERR_TLS_CERT_ALTNAME_INVALID",
  "ERR_SSL_WRONG_VERSION_NUMBER",
  "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_SOCKET_CLOSED",
];

const OTHERS: readonly RaisedError[] = [
  {
    title: "a standby in recovery",
    kind: "lost",
    make: () => serverError("55000", { message: "recovery is in progress" }),
  },
  { title: "a row without a partition", kind: "contention", make: () => serverError("23514") },
  {
    title: "a violated check",
    kind: "defect",
    make: () => serverError("23514", { constraint: "agents_status_known" }),
  },
  { title: "an SQLSTATE of an extension", kind: "damaged", make: () => serverError("ZZ123") },
  {
    title: "all addresses of a name",
    kind: "lost",
    make: () => new AggregateError([nodeError("ECONNREFUSED"), nodeError("ENETUNREACH")]),
  },
  { title: "addresses that all fail otherwise", kind: "lost", make: () => new AggregateError([nodeError("EACCES")]) },
  { title: "an unknown error", kind: "lost", make: () => new Error(INTERNAL_TEXT) },
  { title: "a code that is no text", kind: "lost", make: () => Object.assign(new Error(INTERNAL_TEXT), { code: 42 }) },
  { title: "an aborted operation", kind: "lost", make: () => new DOMException(INTERNAL_TEXT, "AbortError") },
  { title: "a rejection with a string", kind: "lost", make: () => `Connection terminated ${INTERNAL_TEXT}` },
  { title: "a rejection with nothing", kind: "lost", make: () => undefined },
  { title: "a mistake of ours", kind: "defect", make: () => new TypeError(INTERNAL_TEXT) },
  { title: "a value out of range", kind: "defect", make: () => new RangeError(INTERNAL_TEXT) },
];

/** Every error that a statement can end with: of pg, pg-pool, pg-protocol, Knex, tarn, db-errors, Node and the server. */
export const RAISED_ERRORS: readonly RaisedError[] = [
  ...[...SQLSTATES]
    .filter((code) => code !== "23514")
    .map((code) => ({
      title: `SQLSTATE ${code}`,
      kind: kindOfSqlState(code) ?? "damaged",
      make: () => serverError(code),
    })),
  ...UNCODED.flatMap(([source, kind, ...messages]) =>
    messages.map((message) => ({ title: `${source}: ${message}`, kind, make: () => new Error(message) })),
  ),
  ...[...SYSTEM_CODES, ...TLS_CODES].map((code) => ({
    title: code,
    kind: "lost" as const,
    make: () => nodeError(code),
  })),
  ...OTHERS,
];

/** As Objection throws it. */
export function wrapped(error: unknown): unknown {
  return error instanceof Error ? wrapError(error) : error;
}
