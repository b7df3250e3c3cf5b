import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags } from "./connection/connection-options.ts";
import type { ServiceContext } from "./connection/service-context.ts";
import { addExamples, addNotes } from "./help.ts";
import type { Host } from "./host.ts";
import { addOutputOption, type OutputFlags } from "./records/output-option.ts";

/** The arguments of a command's definition. */
export interface Shell {
  readonly host: Host;
  /** Sets the exit code of a finished command. */
  ends(exitCode: number): void;
  /** Another copy of the program, in which the files of all commands are loaded. */
  loadAll(): Promise<Command>;
}

/**
 * Makes a command that calls the service, with the options of the connection, `--output`, and the handling of failures.
 *
 * @param work returns the exit code
 */
export function serviceCommand<Flags extends object>(
  shell: Shell,
  command: Command,
  examples: readonly string[],
  work: (context: ServiceContext, flags: Flags & OutputFlags, args: readonly string[]) => Promise<number>,
): Command {
  addOutputOption(command);
  return connectedCommand<Flags & OutputFlags>(shell, command, examples, work);
}

/** Like `serviceCommand`, for commands without `--output`. */
export function connectedCommand<Flags extends object>(
  { host, ends }: Shell,
  command: Command,
  examples: readonly string[],
  work: (context: ServiceContext, flags: Flags, args: readonly string[]) => Promise<number>,
): Command {
  addConnectionOptions(command);
  addNotes(command, {
    short: "Address, token, certificates, profile and timeout: see --help-all.",
    full: 'Exit codes and profiles: "harborforge-agents --help-all".',
  });
  addExamples(command, examples);
  return command.action(async () => {
    const flags = command.opts<Flags & ConnectionFlags>();
    // Help and a wrong command line need no client of the service.
    const { withService } = await import("./connection/service-context.ts");
    ends(await withService(host, flags, (context) => work(context, flags, command.args)));
  });
}
