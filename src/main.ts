import { readFileSync } from "node:fs";
import { Command, Option } from "commander";
import type { Flags } from "./cli/command.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "./cli/failure.ts";
import { migrateCommand } from "./cli/migrate.ts";
import { serveCommand } from "./cli/serve.ts";
import { SETTINGS, type Setting } from "./config.ts";

/** What is still open this long after a command is done is not waited for, in milliseconds. */
const LINGER_MS = 1_000;

/** Exit codes: 0 all went well, 1 it failed, 2 the command line or a setting is wrong. */
const program = new Command("harborforge-agents")
  .description("Knows which AI agents are there, what each is doing, and when an exhausted one will be back.")
  .version(packageVersion())
  .exitOverride((error) => process.exit(error.exitCode === 0 ? EXIT_OK : EXIT_WRONG_SETTING))
  .configureHelp({ helpWidth: Math.min(process.stdout.columns ?? 100, 120) });

const serve = addSettings(
  program.command("serve").description("serve both doors; every flag is also an environment variable"),
  Object.values(SETTINGS),
).action(async (flags: Flags) => ends(await serveCommand(process, flags)));

addSettings(
  program
    .command("migrate")
    .description("bring the database to the newest schema, and end; safe when several do so at once"),
  [SETTINGS.databaseUrl, SETTINGS.dataDir, SETTINGS.logLevel, SETTINGS.logFormat],
).action(async (flags: Flags) => ends(await migrateCommand(process, flags)));

program.addHelpText("after", () => `\n${serve.helpInformation()}`);

function addSettings(command: Command, settings: readonly Setting<unknown>[]): Command {
  for (const setting of settings) {
    const what = `${setting.description}: ${setting.allowed} (default: ${setting.defaultText}; env: ${setting.env})`;
    command.addOption(new Option(`--${setting.flag} ${setting.placeholder}`, what));
  }
  return command;
}

/** The process ends by itself, since nothing is left open. Were there something, nobody would have to wait for it long. */
function ends(exitCode: number): void {
  process.exitCode = exitCode;
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

function packageVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const parsed: unknown = JSON.parse(text);
  const version = typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : undefined;
  return String(version);
}

await program.parseAsync(process.argv);
