import type { Command } from "commander";

/** Adds examples to `--help`. They must work with the defaults. */
export function addExamples(command: Command, examples: readonly string[]): Command {
  return command.addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}\n`).join("")}`);
}
