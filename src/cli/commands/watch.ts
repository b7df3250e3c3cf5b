import type { Command } from "commander";
import { durationArgument, idArgument } from "../arguments.ts";
import { suspicionOf } from "../calls/service-calls.ts";
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
    .description("watch agents until Ctrl-C: a live table on a terminal, otherwise a line for each transition")
    .option("--from <revision>", "resume after this revision instead of starting with a snapshot", idArgument)
    .option("--duration <time>", "stop after a duration such as 60s or 5m", durationArgument(1, LONGEST_MS));
  addSelectionOptions(command);
  const examples = [
    "harborforge-agents agents watch --claw claw-1",
    "harborforge-agents agents watch -o jsonl | jq -c 'select(.transition.cause == \"TRANSITION_CAUSE_LEASE_EXPIRED\")'",
  ];
  serviceCommand<Flags>(shell, command, examples, async (context, flags) => {
    const { clients, caller, connection, out, err, host } = context;
    const { from, duration, output: format } = flags;
    using interrupt = listenForInterrupts(host);
    const over = duration === undefined ? undefined : setTimeout(interrupt.stop, duration);
    out.onClosed(interrupt.stop);
    const filter = filterOf(flags);
    const output = watchOutput(format, out, err, connection.address, (agentIds) =>
      suspicionOf(caller, filter, agentIds),
    );
    let hasEvents = false;
    try {
      const events = watchRecords(clients, {
        filter,
        signal: interrupt.stopping,
        // A live table needs only the newest state; lines need each transition.
        conflate: format === "table" && out.isScreen,
        ...(from === undefined ? {} : { from }),
      });
      for await (const event of events) {
        // Fail if the first connection fails, instead of retrying silently.
        if (event.kind === "interrupted" && !hasEvents && event.error !== undefined) throw event.error;
        hasEvents = true;
        await output.take(event);
      }
      return EXIT_OK;
    } finally {
      clearTimeout(over);
      output.close();
    }
  });
}
