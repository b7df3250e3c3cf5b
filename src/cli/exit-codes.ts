import type { CallCode } from "harborforge-agents-client";

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_WRONG_SETTING = 2;
export const EXIT_UNREACHABLE = 3;
export const EXIT_NOT_FOUND = 4;
export const EXIT_CONFLICT = 5;
export const EXIT_NOT_ALLOWED = 6;

/** The table of `--help` and of docs/cli.md. */
export const EXIT_CODES: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT_OK, "success; also if Ctrl-C ended a command that runs until Ctrl-C, or the reader closed the output"],
  [EXIT_FAILED, "it failed for another reason"],
  [
    EXIT_WRONG_SETTING,
    "the command line, a setting or the profile file is wrong, or the service rejected a value as invalid",
  ],
  [EXIT_UNREACHABLE, "the service cannot be reached, or cannot answer now: a later retry may help"],
  [EXIT_NOT_FOUND, "the user or agent does not exist"],
  [EXIT_CONFLICT, "rejected because of the present state: name taken, changed since, offline, exhausted"],
  [EXIT_NOT_ALLOWED, "the token is missing, wrong, or lacks the permission"],
];

const BY_CODE: Readonly<Partial<Record<CallCode, number>>> = {
  INVALID_ARGUMENT: EXIT_WRONG_SETTING,
  UNAVAILABLE: EXIT_UNREACHABLE,
  DEADLINE_EXCEEDED: EXIT_UNREACHABLE,
  RESOURCE_EXHAUSTED: EXIT_UNREACHABLE,
  NOT_FOUND: EXIT_NOT_FOUND,
  ALREADY_EXISTS: EXIT_CONFLICT,
  FAILED_PRECONDITION: EXIT_CONFLICT,
  ABORTED: EXIT_CONFLICT,
  OUT_OF_RANGE: EXIT_CONFLICT,
  PERMISSION_DENIED: EXIT_NOT_ALLOWED,
  UNAUTHENTICATED: EXIT_NOT_ALLOWED,
};

/**
 * The exit code for a call that failed without a reason of the contract: it was not the service that refused it, so that
 * nothing follows for users and agents. A connection that is reset on the way is told as `ABORTED`.
 */
export function exitCodeOfStrangers(code: CallCode): number {
  const exitCode = exitCodeOf(code);
  if (code === "ABORTED") return EXIT_UNREACHABLE;
  return exitCode === EXIT_UNREACHABLE || exitCode === EXIT_NOT_ALLOWED ? exitCode : EXIT_FAILED;
}

/** The exit code for a call that was refused. */
export function exitCodeOf(code: CallCode): number {
  return BY_CODE[code] ?? EXIT_FAILED;
}
