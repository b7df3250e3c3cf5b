import process from "node:process";
import type { Command } from "commander";
import { SETTINGS } from "../../config/settings.ts";
import type { Flags } from "../command.ts";
import { addNotes } from "../help.ts";
import type { Shell } from "../shell.ts";
import { addSettings } from "./server-settings.ts";

/** The settings that most deployments need. */
const FIRST = [
  SETTINGS.databaseUrl,
  SETTINGS.dataDir,
  SETTINGS.grpcAddress,
  SETTINGS.httpAddress,
  SETTINGS.tlsCertFile,
  SETTINGS.tlsKeyFile,
  SETTINGS.auth,
  SETTINGS.logLevel,
  SETTINGS.logFormat,
];

/** `serve` runs a replica. The server is loaded only when it runs. */
export function define(command: Command, { ends }: Shell): void {
  command.description("run the service until a signal; each flag is also an environment variable");
  addSettings(command, Object.values(SETTINGS), FIRST);
  addNotes(command, {
    short: "There are more: --help-all, and docs/settings.md.",
    full: "A flag takes precedence over its variable. docs/settings.md explains the settings.",
  });
  command.action(async (flags: Flags) => {
    const { serveCommand } = await import("../serve.ts");
    ends(await serveCommand(process, flags));
  });
}
