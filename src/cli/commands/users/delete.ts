import type { Command } from "commander";
import { EXIT_OK } from "../../exit-codes.ts";
import { jsonText } from "../../records/output.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { printable } from "../../terminal/printable.ts";
import { addKey, idOf, type KeyFlags, keyOf } from "./user-key.ts";

export function define(command: Command, shell: Shell): void {
  addKey(command);
  const examples = ["harborforge-agents users delete ada"];
  serviceCommand<KeyFlags>(shell, command, examples, async (context, flags, [text = ""]) => {
    await context.calls.deleteUser(context.caller, await idOf(context, keyOf(text, flags)));
    const done = flags.output === "table" ? `Deleted user ${printable(text)}.` : jsonText({}, false);
    await context.out.print(`${done}\n`);
    return EXIT_OK;
  });
}
