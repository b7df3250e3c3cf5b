import { CallError } from "harborforge-agents-client";
import { CommandFailure, callFailure } from "../cli/call-failure.ts";
import { EXIT_NOT_ALLOWED } from "../cli/exit-codes.ts";

const DENIED: ReadonlySet<string> = new Set(["UNAUTHENTICATED", "PERMISSION_DENIED"]);

/**
 * Waits for a simulation. If the service denied it a call, the error says which tokens a simulation needs, and which command
 * writes them.
 *
 * @param where the addresses of the service
 * @throws CommandFailure, CallError
 */
export async function withAdvice<Result>(
  run: Promise<Result>,
  { names, claws }: { readonly names: string; readonly claws: number },
  where: string,
): Promise<Result> {
  try {
    return await run;
  } catch (error) {
    const failure = error instanceof CallError && DENIED.has(error.code) ? callFailure(error, where) : error;
    if (!(failure instanceof CommandFailure) || failure.exitCode !== EXIT_NOT_ALLOWED) throw error;
    const command = `harborforge-agents tokens issue --for-simulate DIR --names ${names} --claws ${claws}`;
    throw new CommandFailure(
      `${failure.message} A simulation needs a token of the role admin (--token-file), and for each claw a token of the role agent (--claw-tokens). "${command}" writes both.`,
      EXIT_NOT_ALLOWED,
    );
  }
}
