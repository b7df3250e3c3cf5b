import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { printOne } from "../../records/output.ts";
import { userFacts } from "../../records/user-columns.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { addKey, type KeyFlags, keyOf } from "./user-key.ts";

export function define(command: Command, shell: Shell): void {
  addKey(command);
  const examples = [
    "harborforge-agents users get ada",
    "harborforge-agents users get 17",
    "harborforge-agents users get --by agent-id bob-1",
  ];
  serviceCommand<KeyFlags>(shell, command, examples, async ({ caller, calls, out }, flags, [text = ""]) => {
    await printOne(out, flags.output, await calls.getUser(caller, keyOf(text, flags)), userFacts);
    return EXIT_OK;
  });
}
