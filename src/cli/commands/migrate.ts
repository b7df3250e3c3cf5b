import process from "node:process";
import type { Command } from "commander";
import type { Flags } from "../command.ts";
import { addExamples } from "../help.ts";
import type { Shell } from "../shell.ts";
import { addSettings, DATABASE_SETTINGS } from "./server-settings.ts";

export function define(command: Command, { ends }: Shell): void {
  command
    .description("migrate the database to the newest schema; safe to run several times at once")
    .option("--check", "only check: the exit code is 0 if this version can use the database as it is, else 1")
    .option(
      "--new-history",
      "declare an older state of the database instead: it was brought back, and new revisions exceed all earlier ones",
    );
  addSettings(command, DATABASE_SETTINGS);
  addExamples(command, [
    "DATABASE_URL=postgres://user@host/db harborforge-agents migrate",
    "DATABASE_URL=postgres://user@host/db harborforge-agents migrate --check",
    "DATABASE_URL=postgres://user@host/db harborforge-agents migrate --new-history",
  ]);
  command.action(async (flags: Flags & { readonly check?: true; readonly newHistory?: true }) => {
    const { checkCommand, migrateCommand, newHistoryCommand } = await import("../migrate.ts");
    const run = flags.check === true ? checkCommand : flags.newHistory === true ? newHistoryCommand : migrateCommand;
    ends(await run(process, flags));
  });
}
