import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { jsonText } from "../../records/output.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { printable } from "../../terminal/printable.ts";

export function define(command: Command, shell: Shell): void {
  command.argument("<agent-id>", "which agent");
  const examples = ["harborforge-agents agents delete bob-1"];
  serviceCommand(shell, command, examples, async ({ caller, calls, out }, { output }, [agentId = ""]) => {
    const revision = await calls.deleteAgent(caller, agentId);
    const text = `Deleted agent ${printable(agentId)} at revision ${revision}.`;
    const json = jsonText({ revision: String(revision) }, output === "json");
    await out.print(`${output === "table" ? text : json}\n`);
    return EXIT_OK;
  });
}
