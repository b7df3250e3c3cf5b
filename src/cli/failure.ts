import { EmbeddedPostgresError } from "@harborforge/embedded-postgres";
import { AccessError } from "../access/access-error.ts";
import { ConfigError } from "../config/config.ts";
import { TlsError } from "../rpc/tls/certificate-files.ts";
import { AddressError } from "../server/listen-on.ts";
import { isLostConnection } from "../storage/failures.ts";
import { MigrationError } from "../storage/migrate.ts";
import { EXIT_FAILED, EXIT_WRONG_SETTING } from "./exit-codes.ts";

export interface Explanation {
  /** For the person who started the program: what is wrong, and what to do about it. */
  readonly sentence: string;
  readonly exitCode: number;
  /** Whether nobody foresaw it, so that only the stack says more. */
  readonly defect: boolean;
}

/** What a person is told of a command that failed, and the exit code. `database`: its name, to begin a sentence with. */
export function explain(error: unknown, database: string): Explanation {
  if (error instanceof ConfigError || error instanceof AccessError) {
    return { sentence: error.message, exitCode: EXIT_WRONG_SETTING, defect: false };
  }
  if (
    error instanceof EmbeddedPostgresError ||
    error instanceof MigrationError ||
    error instanceof AddressError ||
    error instanceof TlsError
  ) {
    return { sentence: error.message, exitCode: EXIT_FAILED, defect: false };
  }
  const sentence = databaseSentence(error, database);
  if (sentence !== undefined) return { sentence, exitCode: EXIT_FAILED, defect: false };
  return { sentence: `It failed: ${messageOf(error)}`, exitCode: EXIT_FAILED, defect: true };
}

/** What node-postgres and Node say of a connection that is to be encrypted and cannot be; without a code, or with one of TLS. */
const TLS_FAILURE = /SSL|TLS|certificate|self-signed/i;

/** What node-postgres says when a server takes a connection and then says nothing. */
const NO_ANSWER = "timeout expired";

function databaseSentence(error: unknown, database: string): string | undefined {
  const message = messageOf(error);
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "28P01":
    case "28000":
      return `${database} refuses the login (${message}). Check the user and the password in DATABASE_URL.`;
    case "3D000":
      return `${database} does not exist (${message}). Create it, or check DATABASE_URL.`;
    case "42501":
      return `${database} does not let this user work (${message}). Grant it what it lacks, or use another user.`;
    case "25006":
      return `${database} takes no changes (${message}). It may be a standby: point DATABASE_URL at the primary server.`;
    case "53300":
      return `${database} has no connection to spare (${message}). Let it take more, or start again later.`;
    case "ERR_INVALID_URL":
      return `${database} cannot be used: DATABASE_URL is not a URL that can be connected to.`;
  }
  if (message.startsWith("SASL")) {
    return `${database} asks for a password, and the one in DATABASE_URL is missing or cannot be used (${message}).`;
  }
  if (message === NO_ANSWER) return `${database} does not answer in time. Check DATABASE_URL.`;
  if (isLostConnection(error)) {
    return `${database} cannot be reached (${message}). Check DATABASE_URL.`;
  }
  if (TLS_FAILURE.test(message)) {
    return `${database} cannot be reached with the encryption that DATABASE_URL asks for (${message}). Check its sslmode.`;
  }
  return undefined;
}

function messageOf(error: unknown): string {
  // A host with several addresses fails once for each of them, and says nothing itself.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("; ");
  return error instanceof Error ? error.message || error.name : String(error);
}
