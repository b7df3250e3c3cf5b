import { type Command, Option } from "commander";
import type { Setting } from "../../config/setting.ts";
import { SETTINGS } from "../../config/settings.ts";
import { ROLES } from "../../domain/principal.ts";
import { repeatedText } from "../arguments.ts";
import type { Flags } from "../command.ts";
import { addExamples } from "../examples.ts";
import type { Shell } from "../shell.ts";
import type { IssueFlags } from "../tokens.ts";

// The server is loaded only by the commands that run it, so that the other commands start quickly.

/** The settings of commands that use the database. */
const DATABASE_SETTINGS = [
  SETTINGS.databaseUrl,
  SETTINGS.databaseUrlFile,
  SETTINGS.dataDir,
  SETTINGS.logLevel,
  SETTINGS.logFormat,
];

/**
 * `serve` runs a replica.
 *
 * @param process the process of the replica, which gets its signals
 */
export function registerServe(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const command = program.command("serve").description("run the service; each flag is also an environment variable");
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
      .description("migrate the database to the newest schema; safe to run several times at once")
      .option(
        "--new-history",
        "declare instead that the database was brought back to an older state: new revisions exceed all earlier ones",
      );
    addSettings(command, DATABASE_SETTINGS);
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

/** `tokens` works on the database directly, so that it can issue the first token. */
export function registerTokens(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const tokens = program
      .command("tokens")
      .description("issue, list and revoke API tokens directly in the database; also while the service runs");
    const issue = tokens
      .command("issue")
      .description("issue a token and print it; it is shown only once")
      .addOption(new Option("--role <role>", "the role of its bearer").choices(ROLES).makeOptionMandatory())
      .requiredOption("--principal <name>", "the name of its bearer; a principal has at most two valid tokens")
      .addOption(repeatedText("--agent-id <id>", "for the role agent, repeatable: an agent that the token covers"))
      .option("--claw <identifier>", "for the role agent: the claw whose agents the token covers")
      .option("--lifetime <time>", "how long it is valid: 1s to 366d, such as 12h or 30d (default: 90d)");
    addSettings(issue, DATABASE_SETTINGS).action(async (flags: Flags & IssueFlags) => {
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
      .option("--principal <name>", "only tokens of this principal");
    addSettings(list, DATABASE_SETTINGS).action(async (flags: Flags & { readonly principal?: string }) => {
      const { listTokensCommand } = await import("../tokens.ts");
      ends(await listTokensCommand(process, flags, flags));
    });
    const revoke = tokens
      .command("revoke")
      .description("revoke a token; takes effect within a second")
      .argument("<key-id>", "the public part of the token");
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
