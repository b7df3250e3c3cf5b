import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags } from "./connection/connection.ts";
import { type Session, withService } from "./connection/session.ts";
import { addExamples } from "./examples.ts";
import type { Host } from "./host.ts";
import { addOutputOption, type OutputFlags } from "./records/output.ts";

/** What commands are registered with. */
export interface Shell {
  readonly program: Command;
  readonly host: Host;
  /** Tells the exit code when a command is done. */
  ends(exitCode: number): void;
}

/**
 * Makes a command that calls the service: with the options of the connection and `--output`, and with what becomes of
 * failures.
 *
 * @param work gets the command's arguments and its flags; answers with the exit code
 */
export function serviceCommand<Flags extends object>(
  shell: Shell,
  command: Command,
  examples: readonly string[],
  work: (session: Session, flags: Flags & OutputFlags, args: readonly string[]) => Promise<number>,
): Command {
  addOutputOption(command);
  return connectedCommand<Flags & OutputFlags>(shell, command, examples, work);
}

/** As `serviceCommand`, for commands that have nothing to read out. */
export function connectedCommand<Flags extends object>(
  { host, ends }: Shell,
  command: Command,
  examples: readonly string[],
  work: (session: Session, flags: Flags, args: readonly string[]) => Promise<number>,
): Command {
  addConnectionOptions(command);
  addExamples(command, examples);
  return command.action(async () => {
    const flags = command.opts<Flags & ConnectionFlags>();
    ends(await withService(host, flags, (session) => work(session, flags, command.args)));
  });
}
