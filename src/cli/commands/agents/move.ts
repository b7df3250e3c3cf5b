import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { printAgent } from "./print-agent.ts";

export function define(command: Command, shell: Shell): void {
  command
    .description("move an agent to another claw; ends its session, keeps its status")
    .argument("<agent-id>", "which agent")
    .argument("<claw>", "the identifier of the claw that hosts it from now on");
  const examples = ["harborforge-agents agents move bob-1 claw-2"];
  serviceCommand(shell, command, examples, async ({ caller, calls, out }, { output }, [agentId = "", claw = ""]) => {
    await printAgent(out, output, await calls.moveAgent(caller, agentId, claw));
    return EXIT_OK;
  });
}
