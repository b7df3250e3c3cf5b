import { type Command, Option } from "commander";
import { SETTINGS, type Setting } from "../../config.ts";
import type { Flags } from "../command.ts";
import { addExamples, type Shell } from "../shell.ts";

// The server is loaded when it is to run: whoever only asks a service need not wait for it.

/** `serve`: a replica. `process`: the one that it runs in and that its signals come to. */
export function registerServe(process: NodeJS.Process): (shell: Shell) => void {
  return ({ program, ends }) => {
    const command = program
      .command("serve")
      .description("serve both doors; every flag is also an environment variable");
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
      .description("bring the database to the newest schema, and end; safe when several do so at once");
    addSettings(command, [SETTINGS.databaseUrl, SETTINGS.dataDir, SETTINGS.logLevel, SETTINGS.logFormat]);
    addExamples(command, ["DATABASE_URL=postgres://user@host/database harborforge-agents migrate"]);
    command.action(async (flags: Flags) => {
      const { migrateCommand } = await import("../migrate.ts");
      ends(await migrateCommand(process, flags));
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
