import { EmbeddedPostgresError } from "@harborforge/embedded-postgres";
import { AccessError } from "../access/access-error.ts";
import { ConfigError } from "../config/problems.ts";
import { TlsError } from "../rpc/tls/certificate-files.ts";
import { AddressError } from "../server/listen-on.ts";
import { isLostConnection } from "../storage/failures.ts";
import { MigrationError } from "../storage/migrations.ts";
import { UnusableDatabase } from "../storage/unusable-database.ts";
import { EXIT_FAILED, EXIT_WRONG_SETTING } from "./exit-codes.ts";

export interface Explanation {
  /** For the operator: what is wrong, and what to do. */
  readonly sentence: string;
  readonly exitCode: number;
  /** Whether it is a defect, so that only the stack says more. */
  readonly defect: boolean;
}

/**
 * Explains a failed command to the operator.
 *
 * @param database its name at the start of a sentence
 */
export function explain(error: unknown, database: string): Explanation {
  if (error instanceof ConfigError || error instanceof AccessError) {
    return { sentence: error.message, exitCode: EXIT_WRONG_SETTING, defect: false };
  }
  if (
    error instanceof EmbeddedPostgresError ||
    error instanceof MigrationError ||
    error instanceof UnusableDatabase ||
    error instanceof AddressError ||
    error instanceof TlsError
  ) {
    return { sentence: error.message, exitCode: EXIT_FAILED, defect: false };
  }
  const sentence = databaseSentence(error, database);
  if (sentence !== undefined) return { sentence, exitCode: EXIT_FAILED, defect: false };
  return { sentence: `Unexpected error: ${messageOf(error)}`, exitCode: EXIT_FAILED, defect: true };
}

/** Messages of node-postgres and Node for a failed TLS connection. */
const TLS_FAILURE = /SSL|TLS|certificate|self-signed/i;

/** The message of node-postgres for a server that accepts a connection and does not respond. */
const NO_ANSWER = "timeout expired";

function databaseSentence(error: unknown, database: string): string | undefined {
  const message = messageOf(error);
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "28P01":
    case "28000":
      return `${database} rejects the login (${message}). Check the user and the password in DATABASE_URL.`;
    case "3D000":
      return `${database} does not exist (${message}). Create it, or check DATABASE_URL.`;
    case "42501":
      return `${database} denies this user permission (${message}). Grant the missing privileges, or use another user.`;
    case "25006":
      return `${database} is read-only (${message}). Set DATABASE_URL to the primary server, or allow writes again.`;
    case "53300":
      return `${database} has no free connection (${message}). Raise the limit of the server, the database or the role, or try again later.`;
    case "53100":
      return `${database} has no free space on its disk (${message}). Free some space, and try again.`;
    case "ERR_INVALID_URL":
      return `${database} is not usable: DATABASE_URL is not a valid URL.`;
  }
  if (message.includes("unsupported startup parameter")) {
    return `${database} is a connection pooler that rejects a parameter of DATABASE_URL or PGOPTIONS (${message}). Remove the parameter.`;
  }
  if (message.startsWith("SASL")) {
    return `${database} requires a password, and the one in DATABASE_URL is missing or not usable (${message}).`;
  }
  if (message === NO_ANSWER) return `${database} does not respond in time. Check DATABASE_URL.`;
  if (isLostConnection(error)) {
    return `${database} is unreachable (${message}). Check DATABASE_URL.`;
  }
  if (TLS_FAILURE.test(message)) {
    return `${database} is unreachable with the encryption of DATABASE_URL (${message}). Check its sslmode.`;
  }
  return undefined;
}

function messageOf(error: unknown): string {
  // A host with several addresses has an error for each of them, and no message of its own.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("; ");
  return error instanceof Error ? error.message || error.name : String(error);
}
