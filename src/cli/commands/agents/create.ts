import type { Command } from "commander";
import { idArgument } from "../../arguments.ts";
import { EXIT_OK } from "../../exit-codes.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { printAgent } from "./print-agent.ts";

interface Flags {
  readonly user: bigint;
  readonly claw: string;
}

export function define(command: Command, shell: Shell): void {
  command
    .argument("<agent-id>", "OpenClaw's $AGENT_ID: 1 to 128 characters, unique")
    .requiredOption("--user <id>", "the user's id", idArgument)
    .requiredOption("--claw <identifier>", "the claw that hosts it");
  const examples = ["harborforge-agents agents create bob-1 --user 17 --claw claw-1"];
  serviceCommand<Flags>(shell, command, examples, async ({ caller, calls, out }, flags, [agentId = ""]) => {
    const { user, claw, output } = flags;
    await printAgent(out, output, await calls.createAgent(caller, { userId: user, agentId, clawIdentifier: claw }));
    return EXIT_OK;
  });
}
