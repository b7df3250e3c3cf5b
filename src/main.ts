#!/usr/bin/env node
import { registerMigrate, registerServe, registerTokens } from "./cli/commands/server.ts";
import { runProgram } from "./cli/program.ts";

/** What is still open this long after a command is done is not waited for, in milliseconds. */
const LINGER_MS = 1_000;

/** Commands of this machine's own. They need no client of a service, whose loading would be a tenth of their start. */
const LOCAL = new Set(["serve", "migrate", "tokens"]);

const args = process.argv.slice(2);
const { SERVICE_COMMANDS } = LOCAL.has(args[0] ?? "")
  ? { SERVICE_COMMANDS: [] }
  : await import("./cli/service-commands.ts");
process.exitCode = await runProgram(args, process, [
  registerServe(process),
  registerMigrate(process),
  registerTokens(process),
  ...SERVICE_COMMANDS,
]);
// The process ends by itself, since nothing is left open. If something is, the process does not wait long for it.
setTimeout(() => process.exit(), LINGER_MS).unref();
