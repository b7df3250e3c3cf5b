import { runProgram } from "./cli/program.ts";

/** What is still open this long after a command is done is not waited for, in milliseconds. */
const LINGER_MS = 1_000;

process.exitCode = await runProgram(process.argv.slice(2), process);
// The process ends by itself, since nothing is left open. If something is, the process does not wait long for it.
setTimeout(() => process.exit(), LINGER_MS).unref();
