import { CallError } from "harborforge-agents-client/internal/calls";
import { MICROS_PER_MS } from "../../../common/contract/time.ts";
import { Backoff } from "../../../common/scheduling/backoff.ts";
import { pause } from "../../../common/scheduling/timers.ts";
import { filterOf, type SelectionFlags } from "../commands/selection.ts";
import type { ServiceContext } from "../connection/service-context.ts";
import { EXIT_OK } from "../exit-codes.ts";
import { listenForInterrupts } from "../interrupt.ts";
import { jsonText } from "../records/output.ts";
import type { OutputFlags } from "../records/output-option.ts";
import type { FleetRecord } from "../records/records.ts";
import { printable } from "../terminal/printable.ts";
import { Screen } from "../terminal/screen.ts";
import { clip } from "../terminal/text-width.ts";
import { localTime } from "../terminal/times.ts";
import { fleetLine, fleetLines } from "./fleet-lines.ts";

const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 5_000;

/**
 * `fleet --watch`: shows the counts and their changes until an interrupt. Goes on after a lost connection, at the next
 * address. Before the first counts, each address gets one attempt.
 *
 * @returns the exit code
 */
export async function watchFleet(
  context: ServiceContext,
  flags: SelectionFlags & OutputFlags & { readonly duration?: number },
): Promise<number> {
  const { clients, calls, connection, out, err, host } = context;
  using interrupt = listenForInterrupts(host);
  const signal = interrupt.stopping;
  const over = flags.duration === undefined ? undefined : setTimeout(interrupt.stop, flags.duration);
  out.onClosed(interrupt.stop);
  const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
  const screen = flags.output === "table" && out.isScreen ? new Screen(out) : undefined;
  let fleet: FleetRecord | undefined;
  const draw = (last: string): void => {
    if (screen === undefined || fleet === undefined) return;
    const { rows, columns } = screen.size;
    const lines = fleetLines(fleet, out, Date.now()).slice(0, Math.max(1, rows - 2));
    screen.draw([
      ...lines,
      "",
      last === "" ? out.paint("dim", "Stop with Ctrl-C.") : out.paint("alarm", clip(last, columns - 1)),
    ]);
  };
  let untried = connection.addresses.length;
  try {
    while (!signal.aborted) {
      try {
        for await (const message of calls.watchFleet({ clients, signal }, filterOf(flags))) {
          untried = 0;
          backoff.reset();
          fleet = message.fleet;
          if (screen !== undefined) draw("");
          else if (flags.output === "table")
            await out.print(`${localTime(Date.now() * MICROS_PER_MS, Date.now())} ${fleetLine(fleet)}\n`);
          else await out.print(`${jsonText(message.json, flags.output === "json")}\n`);
        }
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof CallError) || error.permanent) throw error;
        untried -= 1;
        if (fleet === undefined && untried <= 0) throw error;
        // A watch that ends by its age is no disturbance.
        if (error.reason !== "DRAINING") {
          const why = `Disconnected: ${printable(error.message)}. Reconnecting.`;
          if (screen !== undefined) draw(why);
          else await err.print(`${why}\n`);
          clients.reconnect();
        }
        await pause(backoff.next(error.retryAfterMs), signal);
      }
    }
    return EXIT_OK;
  } finally {
    clearTimeout(over);
    screen?.close();
  }
}
