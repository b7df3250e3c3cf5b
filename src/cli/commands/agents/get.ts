import type { Command } from "commander";
import { idArgument } from "../../arguments.ts";
import { CommandFailure } from "../../call-failure.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../../exit-codes.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { printAgent } from "./print-agent.ts";

interface Flags {
  readonly user?: bigint;
}

export function define(command: Command, shell: Shell): void {
  command
    .argument("[agent-id]", "which agent")
    .option("--user <id>", "the agent of the user with this id, instead of <agent-id>", idArgument);
  const examples = ["harborforge-agents agents get bob-1", "harborforge-agents agents get --user 17 -o json"];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out }, { user, output }, [agentId]) => {
    if ((agentId === undefined) === (user === undefined)) {
      throw new CommandFailure("Name the agent either by its id or with --user.", EXIT_WRONG_SETTING);
    }
    const key = user === undefined ? { agentId: agentId ?? "" } : { userId: user };
    await printAgent(out, output, await calls.getAgent(caller, key));
    return EXIT_OK;
  });
}
