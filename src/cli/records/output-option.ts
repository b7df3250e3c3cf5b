import { type Command, Option } from "commander";

export const OUTPUTS = ["table", "json", "jsonl"] as const;
/** `table` is for people. `json` (one document) and `jsonl` (one line for each item) are the contract's JSON. */
export type OutputFormat = (typeof OUTPUTS)[number];

export interface OutputFlags {
  readonly output: OutputFormat;
}

export function addOutputOption(command: Command): Command {
  return command.addOption(
    new Option(
      "-o, --output <format>",
      "table, json or jsonl; JSON is the contract's, as one document (json) or one line for each item (jsonl)",
    )
      .choices(OUTPUTS)
      .default("table"),
  );
}
