import type { CallError } from "harborforge-agents-client";
import { EXIT_UNREACHABLE, exitCodeOf, exitCodeOfStrangers } from "./exit-codes.ts";
import { printable } from "./terminal/printable.ts";

/** A command that cannot go on: one line for people, and the exit code. */
export class CommandFailure extends Error {
  override readonly name = "CommandFailure";
  readonly exitCode: number;

  constructor(sentence: string, exitCode: number) {
    super(sentence);
    this.exitCode = exitCode;
  }
}

/** Where this program can say more on what to do than the service, which knows no commands and no flags. */
const ADVICE: Readonly<Record<string, string>> = {
  INVALID_PAGE_TOKEN: "Use a --page-token with the filters it came with, or begin without one.",
  USER_NOT_FOUND: 'See "harborforge-agents users list".',
  AGENT_NOT_FOUND: 'See "harborforge-agents agents list".',
  AGENT_ID_TAKEN: 'See whose it is with "harborforge-agents agents get".',
  WRONG_CLAW: 'Name its own claw, or move it with "harborforge-agents agents move".',
  UNAUTHENTICATED: "Give a token: --token-file, HARBORFORGE_TOKEN or the profile file.",
};

/** What Node says when the two ends of TLS do not trust each other. */
const CERTIFICATE = /certificate|\b(TLS|SSL)\b/i;

/** A refused call as one line: what failed, why, what to do; and the exit code. */
export function callFailure(error: CallError, address: string): CommandFailure {
  if (error.reason === undefined && CERTIFICATE.test(error.message)) {
    const said = `No safe connection to ${address} (${printable(error.message)}).`;
    return new CommandFailure(
      `${said} Name who vouches for the service with --ca, and who calls with --cert and --key.`,
      EXIT_UNREACHABLE,
    );
  }
  const exitCode = error.reason === undefined ? exitCodeOfStrangers(error.code) : exitCodeOf(error.code);
  return new CommandFailure(sentenceOf(error, address), exitCode);
}

function sentenceOf({ reason, code, message, retryAfterMs }: CallError, address: string): string {
  const said = closed(printable(message));
  if (reason !== undefined) {
    const advice = ADVICE[reason];
    const later = advice === undefined && retryAfterMs !== undefined ? "Try again later." : advice;
    return [`${printable(reason)}: ${said}`, ...(later === undefined ? [] : [later])].join(" ");
  }
  // Without a reason of the contract it was not the service that spoke.
  switch (code) {
    case "UNAVAILABLE":
      return `No service can be reached at ${address} (${printable(message)}). Start one with "harborforge-agents serve", or name its gRPC listener with --address.`;
    case "DEADLINE_EXCEEDED":
      return `The service at ${address} did not answer in time. Try again, or wait longer with --timeout.`;
    default:
      return `${code}: ${said} What answers at ${address} may not be the gRPC listener of this service: name another with --address.`;
  }
}

function closed(sentence: string): string {
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
