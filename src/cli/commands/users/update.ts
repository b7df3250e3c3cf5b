import type { Command } from "commander";
import { CommandFailure } from "../../call-failure.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../../exit-codes.ts";
import { printOne } from "../../records/output.ts";
import { userFacts } from "../../records/user-columns.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import { addKey, idOf, type KeyFlags, keyOf } from "./user-key.ts";

interface Flags extends KeyFlags {
  readonly email?: string;
  readonly displayName?: string;
}

export function define(command: Command, shell: Shell): void {
  addKey(command)
    .option("--email <address>", 'the new address; "" removes it')
    .option("--display-name <name>", "the new name to show");
  const examples = [
    'harborforge-agents users update ada --display-name "Ada L."',
    'harborforge-agents users update 17 --email ""',
  ];
  serviceCommand<Flags>(shell, command, examples, async (context, flags, [text = ""]) => {
    const { email, displayName } = flags;
    if (email === undefined && displayName === undefined) {
      throw new CommandFailure("Nothing to change: use --email or --display-name.", EXIT_WRONG_SETTING);
    }
    const change = {
      ...(email === undefined ? {} : { email }),
      ...(displayName === undefined ? {} : { displayName }),
    };
    const user = await context.calls.updateUser(context.caller, await idOf(context, keyOf(text, flags)), change);
    await printOne(context.out, flags.output, user, userFacts);
    return EXIT_OK;
  });
}
