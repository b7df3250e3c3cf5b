import type { Command } from "commander";

/** Lines for `--help` that work as they stand, given the defaults. */
export function addExamples(command: Command, examples: readonly string[]): Command {
  return command.addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}\n`).join("")}`);
}
