import process from "node:process";
import { type Command, Option } from "commander";
import { ROLES } from "../../../domain/principal.ts";
import { repeatedText } from "../../arguments.ts";
import type { Flags } from "../../command.ts";
import { addExamples } from "../../help.ts";
import type { Shell } from "../../shell.ts";
import type { IssueFlags } from "../../tokens.ts";
import { addSettings, DATABASE_SETTINGS } from "../server-settings.ts";

export function define(command: Command, { ends }: Shell): void {
  command
    .description("issue a token and print it; it is shown only once")
    .addOption(new Option("--role <role>", "the role of its bearer").choices(ROLES).makeOptionMandatory())
    .requiredOption("--principal <name>", "the name of its bearer; a principal has at most two valid tokens")
    .addOption(repeatedText("--agent-id <id>", "for the role agent, repeatable: an agent that the token covers"))
    .option("--claw <identifier>", "for the role agent: the claw whose agents the token covers")
    .option("--lifetime <time>", "how long it is valid: 1s to 366d, such as 12h or 30d (default: 90d)");
  addSettings(command, DATABASE_SETTINGS);
  addExamples(command, [
    "harborforge-agents tokens issue --role admin --principal ada",
    "harborforge-agents tokens issue --role agent --principal claw-1 --claw claw-1 --lifetime 30d",
  ]);
  command.action(async (flags: Flags & IssueFlags) => {
    const { issueTokenCommand } = await import("../../tokens.ts");
    ends(await issueTokenCommand(process, flags, flags));
  });
}
