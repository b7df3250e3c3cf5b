import { filterOf } from "../commands/selection.ts";
import type { ServiceContext } from "../connection/service-context.ts";
import { EXIT_OK } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import type { OutputFlags } from "../records/output-option.ts";
import { watchRecords } from "../records/records.ts";
import type { WatchFlags } from "./watch-flags.ts";
import { watchOutput } from "./watch-output.ts";

/** `agents watch`: shows agents and their changes until an interrupt. @returns the exit code */
export async function watch(context: ServiceContext, flags: WatchFlags & OutputFlags): Promise<number> {
  const { clients, caller, calls, connection, out, err, host } = context;
  const { from, duration, output: format } = flags;
  using interrupt = listenForInterrupts(host);
  const over = duration === undefined ? undefined : setTimeout(interrupt.stop, duration);
  out.onClosed(interrupt.stop);
  const filter = filterOf(flags);
  const output = watchOutput(format, out, err, connection.addresses.join(", "), (agentIds) =>
    calls.suspicionOf(caller, filter, agentIds),
  );
  // Each address gets one attempt before the first event. Then the watch fails, instead of retrying silently.
  let untried = connection.addresses.length;
  try {
    const events = watchRecords(clients, {
      filter,
      signal: interrupt.stopping,
      // A live table needs only the newest state; lines need each transition.
      conflate: format === "table" && out.isScreen,
      ...(from === undefined ? {} : { from }),
    });
    for await (const event of events) {
      if (event.kind === "interrupted" && untried > 0 && event.error !== undefined) {
        untried -= 1;
        if (untried === 0) throw event.error;
        continue;
      }
      untried = 0;
      await output.take(event);
    }
    return EXIT_OK;
  } finally {
    clearTimeout(over);
    output.close();
  }
}
