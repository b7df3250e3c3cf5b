import { readFileSync } from "node:fs";
import { Command, Option } from "commander";
import { migrateCommand } from "./cli/migrate.ts";
import { serveCommand } from "./cli/serve.ts";
import { SETTINGS } from "./config.ts";

/** Exit codes: 0 all went well, 1 it failed, 2 the command line or a setting is wrong. */
const program = new Command("harborforge-agents")
  .description("Knows which AI agents are there, what each is doing, and when an exhausted one will be back.")
  .version(packageVersion())
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .configureHelp({ helpWidth: Math.min(process.stdout.columns ?? 100, 120) });

const serve = program.command("serve").description("serve both doors; every flag is also an environment variable");
for (const setting of Object.values(SETTINGS)) {
  const what = `${setting.description}: ${setting.allowed} (default: ${setting.defaultText}; env: ${setting.env})`;
  serve.addOption(new Option(`--${setting.flag} ${setting.placeholder}`, what));
}
serve.action(async (flags: Record<string, string>) => {
  process.exitCode = await serveCommand(process, flags);
});

program
  .command("migrate")
  .description("bring the database of DATABASE_URL to the newest schema; safe when several do so at once")
  .addOption(new Option("--database-url <url>", "the database to migrate (env: DATABASE_URL)"))
  .action(async (flags: { databaseUrl?: string }) => {
    process.exitCode = await migrateCommand(process, flags.databaseUrl);
  });

function packageVersion(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const parsed: unknown = JSON.parse(text);
  const version = typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : undefined;
  return String(version);
}

await program.parseAsync(process.argv);
