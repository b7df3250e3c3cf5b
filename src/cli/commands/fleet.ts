import type { Command } from "commander";
import { durationArgument, LONGEST_RUN_MS } from "../arguments.ts";
import { CommandFailure } from "../call-failure.ts";
import { EXIT_OK, EXIT_WRONG_SETTING } from "../exit-codes.ts";
import { jsonText } from "../records/output.ts";
import { type Shell, serviceCommand } from "../shell.ts";
import { fleetLines } from "../watch/fleet-lines.ts";
import { addSelectionOptions, filterOf, type SelectionFlags } from "./selection.ts";

interface FleetFlags extends SelectionFlags {
  readonly watch?: boolean;
  readonly duration?: number;
}

export function define(command: Command, shell: Shell): void {
  command.description("count agents by status and claw; show the brake and the pace of heartbeats");
  addSelectionOptions(command);
  command
    .option("-w, --watch", "go on with the counts that change: a live table, or a line for each change")
    .option(
      "--duration <time>",
      "with --watch, stop after a duration such as 60s or 5m",
      durationArgument(1, LONGEST_RUN_MS),
    );
  const examples = [
    "harborforge-agents fleet",
    "harborforge-agents fleet --watch",
    "harborforge-agents fleet --claw claw-1 -o json",
  ];
  serviceCommand<FleetFlags>(shell, command, examples, async (context, flags) => {
    const { caller, calls, out } = context;
    if (flags.duration !== undefined && flags.watch !== true) {
      throw new CommandFailure("--duration needs --watch.", EXIT_WRONG_SETTING);
    }
    if (flags.watch === true) {
      const { watchFleet } = await import("../watch/watch-fleet.ts");
      return await watchFleet(context, flags);
    }
    const fleet = await calls.getFleet(caller, filterOf(flags));
    const { output } = flags;
    const text =
      output === "table" ? fleetLines(fleet, out, Date.now()).join("\n") : jsonText(fleet.json, output === "json");
    await out.print(`${text}\n`);
    return EXIT_OK;
  });
}
