import { type Command, Option } from "commander";
import { choiceArgument, durationArgument, LONGEST_RUN_MS } from "../arguments.ts";
import { type BeatFlags, REPORTS } from "../beat/beat-flags.ts";
import { connectedCommand, type Shell } from "../shell.ts";
import { addExhaustionOptions } from "./exhaustion-options.ts";

export function define(command: Command, shell: Shell): void {
  command
    .description("send the heartbeats of an agent until Ctrl-C, then its goodbye")
    .argument("<agent-id>", "which agent")
    .option("--claw <identifier>", "the claw that hosts it (default: the agent's current claw)")
    .addOption(
      new Option("--status <status>", "the first status that it reports")
        .choices(REPORTS)
        .argParser(choiceArgument(REPORTS)),
    );
  addExhaustionOptions(command)
    .option(
      "-i, --interactive",
      "read further statuses from standard input, one in a line: idle, busy, exhausted rate_limit 2m, …",
    )
    .option("--duration <time>", "stop after a duration such as 60s or 5m", durationArgument(1, LONGEST_RUN_MS))
    .option("--no-goodbye", "stop without a goodbye: the agent keeps its lease until it expires");
  const examples = [
    "harborforge-agents beat bob-1 --status busy",
    "harborforge-agents beat bob-1 --status exhausted --reason rate_limit --retry-after 2m",
    "harborforge-agents beat bob-1 --interactive",
  ];
  connectedCommand<BeatFlags>(shell, command, examples, async (context, flags, args) => {
    const { beat } = await import("../beat/beat.ts");
    return await beat(context, flags, args);
  });
}
