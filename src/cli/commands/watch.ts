import type { Command } from "commander";
import { durationArgument, idArgument } from "../arguments.ts";
import { EXIT_OK } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { watchRecords } from "../records/records.ts";
import { type Shell, serviceCommand } from "../shell.ts";
import { watchOutput } from "../watch/watch-output.ts";
import { addSelectionOptions, filterOf, type SelectionFlags } from "./selection.ts";

const LONGEST_MS = 366 * 24 * 3_600_000;

export function registerWatch(shell: Shell, agents: Command): void {
  interface Flags extends SelectionFlags {
    readonly from?: bigint;
    readonly duration?: number;
  }
  const command = agents
    .command("watch")
    .description("show agents and what happens to them until Ctrl-C: a live table on a terminal, else a line each")
    .option("--from <revision>", "go on after this revision instead of beginning with all agents", idArgument)
    .option("--duration <time>", "ends by itself after a time such as 60s or 5m", durationArgument(1, LONGEST_MS));
  addSelectionOptions(command);
  const examples = [
    "harborforge-agents agents watch --claw claw-1",
    "harborforge-agents agents watch -o jsonl | jq -c 'select(.transition.cause == \"TRANSITION_CAUSE_LEASE_EXPIRED\")'",
  ];
  serviceCommand<Flags>(shell, command, examples, async (session, flags) => {
    const { clients, connection, out, err, host } = session;
    const { from, duration, output: format } = flags;
    using interrupt = listenForInterrupts(host);
    const over = duration === undefined ? undefined : setTimeout(interrupt.stop, duration);
    out.onGone(interrupt.stop);
    const output = watchOutput(format, out, err, connection.address);
    let heard = false;
    try {
      const events = watchRecords(clients, {
        filter: filterOf(flags),
        signal: interrupt.stopping,
        // A table shows what is; whoever reads lines wants each.
        conflate: format === "table" && out.isScreen,
        ...(from === undefined ? {} : { from }),
      });
      for await (const event of events) {
        // Who never had an answer is better told than left waiting.
        if (event.kind === "interrupted" && !heard && event.error !== undefined) throw event.error;
        heard = true;
        await output.take(event);
      }
      return EXIT_OK;
    } finally {
      clearTimeout(over);
      output.close();
    }
  });
}
