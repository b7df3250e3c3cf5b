import process from "node:process";
import type { Command } from "commander";
import type { Flags } from "../../command.ts";
import { addExamples } from "../../help.ts";
import type { Shell } from "../../shell.ts";
import { addSettings, DATABASE_SETTINGS } from "../server-settings.ts";

export function define(command: Command, { ends }: Shell): void {
  command.argument("<key-id>", "the public part of the token");
  addSettings(command, DATABASE_SETTINGS);
  addExamples(command, ["harborforge-agents tokens revoke 4gk2PfQ0c7Zx"]);
  command.action(async (keyId: string, flags: Flags) => {
    const { revokeTokenCommand } = await import("../../tokens.ts");
    ends(await revokeTokenCommand(process, flags, keyId));
  });
}
