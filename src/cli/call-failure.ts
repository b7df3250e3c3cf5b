import type { CallError } from "harborforge-agents-client";
import { EXIT_UNREACHABLE, exitCodeOf, exitCodeWithoutReason } from "./exit-codes.ts";
import { printable } from "./terminal/printable.ts";

/** A command that failed: a message of one line, and the exit code. */
export class CommandFailure extends Error {
  override readonly name = "CommandFailure";
  readonly exitCode: number;

  constructor(sentence: string, exitCode: number) {
    super(sentence);
    this.exitCode = exitCode;
  }
}

/** Advice by reason of the contract. The service does not know this program's commands and flags. */
const ADVICE: Readonly<Record<string, string>> = {
  INVALID_PAGE_TOKEN: "Use --page-token with the filters of the first page, or omit it.",
  USER_NOT_FOUND: 'See "harborforge-agents users list".',
  AGENT_NOT_FOUND: 'See "harborforge-agents agents list".',
  AGENT_ID_TAKEN: 'Find its user with "harborforge-agents agents get".',
  WRONG_CLAW: 'Use the claw of the agent, or move the agent with "harborforge-agents agents move".',
  UNAUTHENTICATED: "Set a token with --token-file, HARBORFORGE_TOKEN or the profile file.",
};

/** Messages of Node for a failed TLS handshake. */
const CERTIFICATE = /certificate|\b(TLS|SSL)\b/i;

/** Whether the TLS handshake failed, which a retry does not change. */
export function isCertificateFailure({ reason, message }: CallError): boolean {
  return reason === undefined && CERTIFICATE.test(message);
}

/** Explains a failed call in one line: what failed, why, and what to do. */
export function callFailure(error: CallError, address: string): CommandFailure {
  if (isCertificateFailure(error)) {
    const text = `The TLS connection to ${address} failed (${printable(error.message)}).`;
    return new CommandFailure(
      `${text} Set the certificate authority with --ca, and a client certificate with --cert and --key.`,
      EXIT_UNREACHABLE,
    );
  }
  const exitCode = error.reason === undefined ? exitCodeWithoutReason(error.code) : exitCodeOf(error.code);
  return new CommandFailure(sentenceOf(error, address), exitCode);
}

function sentenceOf({ reason, code, message, retryAfterMs }: CallError, address: string): string {
  const text = closed(printable(message));
  if (reason !== undefined) {
    const advice = ADVICE[reason];
    const later = advice === undefined && retryAfterMs !== undefined ? "Try again later." : advice;
    return [`${printable(reason)}: ${text}`, ...(later === undefined ? [] : [later])].join(" ");
  }
  // Without a reason of the contract, the error does not come from the service.
  switch (code) {
    case "UNAVAILABLE":
      return `The service at ${address} is unreachable (${printable(message)}). Start it with "harborforge-agents serve", or set the address of its gRPC listener with --address.`;
    case "DEADLINE_EXCEEDED":
      return `The service at ${address} did not respond in time. Try again, or set a longer --timeout.`;
    default:
      return `${code}: ${text} The server at ${address} may not be the gRPC listener of this service: check --address.`;
  }
}

function closed(sentence: string): string {
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
