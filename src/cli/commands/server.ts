import { type Command, Option } from "commander";
import type { Setting } from "../../config/setting.ts";
import { SETTINGS } from "../../config/settings.ts";
import { ROLES } from "../../domain/principal.ts";
import { repeatedText } from "../arguments.ts";
import type { Flags } from "../command.ts";
import { addExamples } from "../examples.ts";
import type { Shell } from "../shell.ts";
import type { IssueWords } from "../tokens.ts";

// The server is loaded when it is to run: whoever only asks a service need not wait for it.

/** `serve`: a replica. `process`: the one that it runs in and that its signals come to. */
export function registerServe(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const command = program
      .command("serve")
      .description("serve both listeners; every flag is also an environment variable");
    addSettings(command, Object.values(SETTINGS)).action(async (flags: Flags) => {
      const { serveCommand } = await import("../serve.ts");
      ends(await serveCommand(process, flags));
    });
    program.addHelpText("after", () => `\n${command.helpInformation()}`);
  };
}

export function registerMigrate(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const command = program
      .command("migrate")
      .description("bring the database to the newest schema, and end; safe when several do so at once")
      .option(
        "--new-history",
        "instead, declare that the database was brought back to an older state: revisions go on beyond all that were given",
      );
    addSettings(command, [SETTINGS.databaseUrl, SETTINGS.dataDir, SETTINGS.logLevel, SETTINGS.logFormat]);
    addExamples(command, [
      "DATABASE_URL=postgres://user@host/database harborforge-agents migrate",
      "DATABASE_URL=postgres://user@host/database harborforge-agents migrate --new-history",
    ]);
    command.action(async (flags: Flags & { readonly newHistory?: true }) => {
      const { migrateCommand, newHistoryCommand } = await import("../migrate.ts");
      ends(await (flags.newHistory === true ? newHistoryCommand : migrateCommand)(process, flags));
    });
  };
}

const DATABASE_SETTINGS = [SETTINGS.databaseUrl, SETTINGS.dataDir, SETTINGS.logLevel, SETTINGS.logFormat];

/** `tokens`: straight on the database, so that there can be a first one. */
export function registerTokens(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const tokens = program
      .command("tokens")
      .description("issue, list and revoke API tokens, straight on the database; beside a running service, too");
    const issue = tokens
      .command("issue")
      .description("issue a token, and print it: this once")
      .addOption(new Option("--role <role>", "what its bearer may do").choices(ROLES).makeOptionMandatory())
      .requiredOption("--principal <name>", "who it stands for; two tokens of one principal may live at a time")
      .addOption(repeatedText("--agent-id <id>", "for agents, repeatable: an agent that its bearer speaks for"))
      .option("--claw <identifier>", "for agents: the claw for whose agents its bearer speaks")
      .option("--lifetime <time>", "how long it is good for: 1s to 366d, such as 12h or 30d (default: 90d)");
    addSettings(issue, DATABASE_SETTINGS).action(async (flags: Flags & IssueWords) => {
      const { issueTokenCommand } = await import("../tokens.ts");
      ends(await issueTokenCommand(process, flags, flags));
    });
    addExamples(issue, [
      "harborforge-agents tokens issue --role admin --principal ada",
      "harborforge-agents tokens issue --role agent --principal claw-1 --claw claw-1 --lifetime 30d",
    ]);
    const list = tokens
      .command("list")
      .description("list all tokens, without their secrets")
      .option("--principal <name>", "only those of this principal");
    addSettings(list, DATABASE_SETTINGS).action(async (flags: Flags & { readonly principal?: string }) => {
      const { listTokensCommand } = await import("../tokens.ts");
      ends(await listTokensCommand(process, flags, flags));
    });
    const revoke = tokens
      .command("revoke")
      .description("revoke a token: within a second it lets nobody in")
      .argument("<key-id>", "the part of the token that is no secret");
    addSettings(revoke, DATABASE_SETTINGS).action(async (keyId: string, flags: Flags) => {
      const { revokeTokenCommand } = await import("../tokens.ts");
      ends(await revokeTokenCommand(process, flags, keyId));
    });
  };
}

function addSettings(command: Command, settings: readonly Setting<unknown>[]): Command {
  for (const setting of settings) {
    const what = `${setting.description}: ${setting.allowed} (default: ${setting.defaultText}; env: ${setting.env})`;
    command.addOption(new Option(`--${setting.flag} ${setting.placeholder}`, what));
  }
  return command;
}
