#!/usr/bin/env node
import { registerMigrate, registerServe, registerTokens } from "./cli/commands/server.ts";
import { runProgram, SERVICE_COMMANDS } from "./cli/program.ts";

/** What is still open this long after a command is done is not waited for, in milliseconds. */
const LINGER_MS = 1_000;

process.exitCode = await runProgram(process.argv.slice(2), process, [
  registerServe(process),
  registerMigrate(process),
  registerTokens(process),
  ...SERVICE_COMMANDS,
]);
// The process ends by itself, since nothing is left open. Were there something, nobody would have to wait for it long.
setTimeout(() => process.exit(), LINGER_MS).unref();
