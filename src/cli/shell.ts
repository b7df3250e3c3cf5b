import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags } from "./connection/connection.ts";
import { type ServiceContext, withService } from "./connection/service-context.ts";
import { addExamples } from "./examples.ts";
import type { Host } from "./host.ts";
import { addOutputOption, type OutputFlags } from "./records/output.ts";

/** The arguments of a command's registration. */
export interface Shell {
  readonly program: Command;
  readonly host: Host;
  /** Sets the exit code of a finished command. */
  ends(exitCode: number): void;
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
  addExamples(command, examples);
  return command.action(async () => {
    const flags = command.opts<Flags & ConnectionFlags>();
    ends(await withService(host, flags, (context) => work(context, flags, command.args)));
  });
}
