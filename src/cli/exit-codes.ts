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
  [EXIT_OK, "success; also after Ctrl-C where that is the normal end, or when the output was closed"],
  [EXIT_FAILED, "another failure"],
  [EXIT_WRONG_SETTING, "the command line, a setting, the profile file or a value of the request is invalid"],
  [EXIT_UNREACHABLE, "the service is unreachable or unavailable: a later retry may help"],
  [EXIT_NOT_FOUND, "the user, agent or token does not exist"],
  [EXIT_CONFLICT, "a conflict with the current state: name taken, changed since, offline, exhausted"],
  [EXIT_NOT_ALLOWED, "the token is missing or invalid, or does not allow the call"],
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
 * The exit code of a call that failed without a reason of the contract: another server rejected it, so it says nothing
 * about users and agents. gRPC reports a reset connection as `ABORTED`.
 */
export function exitCodeWithoutReason(code: CallCode): number {
  const exitCode = exitCodeOf(code);
  if (code === "ABORTED") return EXIT_UNREACHABLE;
  return exitCode === EXIT_UNREACHABLE || exitCode === EXIT_NOT_ALLOWED ? exitCode : EXIT_FAILED;
}

/** The exit code of a rejected call. */
export function exitCodeOf(code: CallCode): number {
  return BY_CODE[code] ?? EXIT_FAILED;
}
