import process from "node:process";
import type { Command } from "commander";
import type { Flags } from "../../command.ts";
import { addExamples } from "../../help.ts";
import type { Shell } from "../../shell.ts";
import { addSettings, DATABASE_SETTINGS } from "../server-settings.ts";

export function define(command: Command, { ends }: Shell): void {
  command.option("--principal <name>", "only tokens of this principal");
  addSettings(command, DATABASE_SETTINGS);
  addExamples(command, ["harborforge-agents tokens list --principal ada"]);
  command.action(async (flags: Flags & { readonly principal?: string }) => {
    const { listTokensCommand } = await import("../../tokens.ts");
    ends(await listTokensCommand(process, flags, flags));
  });
}
