import type { Command } from "commander";
import { durationArgument, idArgument, LONGEST_RUN_MS } from "../../arguments.ts";
import { type Shell, serviceCommand } from "../../shell.ts";
import type { WatchFlags } from "../../watch/watch-flags.ts";
import { addSelectionOptions } from "../selection.ts";

export function define(command: Command, shell: Shell): void {
  command
    .description("watch agents until Ctrl-C: a live table on a terminal, otherwise a line for each transition")
    .option("--from <revision>", "resume after this revision (instead of starting with a snapshot)", idArgument)
    .option("--duration <time>", "stop after a duration such as 60s or 5m", durationArgument(1, LONGEST_RUN_MS));
  addSelectionOptions(command);
  const examples = [
    "harborforge-agents agents watch --claw claw-1",
    "harborforge-agents agents watch -o jsonl | jq -c 'select(.transition.cause == \"TRANSITION_CAUSE_LEASE_EXPIRED\")'",
  ];
  serviceCommand<WatchFlags>(shell, command, examples, async (context, flags) => {
    const { watch } = await import("../../watch/watch.ts");
    return await watch(context, flags);
  });
}
