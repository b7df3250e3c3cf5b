import process from "node:process";
import { type Command, Option } from "commander";
import { ROLES } from "../../../domain/principal.ts";
import { repeatedText, wholeArgument } from "../../arguments.ts";
import type { Flags } from "../../command.ts";
import { addExamples, inDetail } from "../../help.ts";
import type { IssueFlags } from "../../issue-tokens.ts";
import type { Shell } from "../../shell.ts";
import { DEFAULT_CLAWS, MAX_CLAWS, namesOption } from "../fleet-names.ts";
import { addSettings, DATABASE_SETTINGS } from "../server-settings.ts";

export function define(command: Command, { ends }: Shell): void {
  command
    .description("issue a token and print it; it is shown only once")
    .addOption(new Option("--role <role>", "the role of its bearer").choices(ROLES))
    .option("--principal <name>", "the name of its bearer; a principal has at most two valid tokens")
    .addOption(repeatedText("--agent-id <id>", "for the role agent, repeatable: an agent that the token covers"))
    .option("--claw <identifier>", "for the role agent: the claw whose agents the token covers")
    .option("--lifetime <time>", "how long it is valid: 1s to 366d, such as 12h or 30d (default: 90d)")
    .option("--output-file <path>", "write the token to this new file, readable by you only; do not print it")
    .option("--overwrite", "let --output-file and --for-simulate replace files")
    .option("--for-simulate <folder>", "write all tokens of a simulation to this folder; with its --names and --claws")
    .addOption(inDetail(namesOption()))
    .addOption(
      inDetail(
        new Option("--claws <number>", `for --for-simulate: the number of claws, 1 to ${MAX_CLAWS}`)
          .default(DEFAULT_CLAWS)
          .argParser(wholeArgument(1, MAX_CLAWS)),
      ),
    );
  addSettings(command, DATABASE_SETTINGS);
  addExamples(command, [
    "harborforge-agents tokens issue --role admin --principal ada",
    "harborforge-agents tokens issue --for-simulate ~/simulation",
    "harborforge-agents tokens issue --role service --principal calendar --output-file calendar.token",
    "harborforge-agents tokens issue --role agent --principal claw-1 --claw claw-1 --lifetime 30d",
  ]);
  command.action(async (flags: Flags & IssueFlags) => {
    if (flags.forSimulate === undefined && (flags.role === undefined || flags.principal === undefined)) {
      command.error("error: --role and --principal are required, or --for-simulate instead");
    }
    const { issueTokenCommand } = await import("../../issue-tokens.ts");
    ends(await issueTokenCommand(process, flags, flags));
  });
}
