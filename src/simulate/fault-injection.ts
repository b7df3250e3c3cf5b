import { pause } from "../../common/scheduling/timers.ts";
import { counted } from "../cli/terminal/counted.ts";
import type { ClawSeat } from "./claw-seat.ts";
import type { FleetTally } from "./fleet-tally.ts";
import { sizeOf } from "./fleet-tally.ts";
import { processText, spanOf } from "./format.ts";
import type { FleetPace } from "./service-calls.ts";

const FIRST_LOSS_AFTER_MS = 15_000;
const NEXT_LOSS_AFTER_MS = 45_000;
const AWAY_MS = 5_000;
const CHECK_EVERY_MS = 50;

export interface FaultInjectionOptions {
  readonly seats: readonly ClawSeat[];
  readonly fleet: FleetTally;
  readonly pace: FleetPace;
  readonly speed: number;
  /** Called before a claw is killed: its expired leases are expected from now on. */
  onLost(seat: ClawSeat): void;
  note(sentence: string): void;
  /** The notice to show at the moment; undefined: none. */
  notice(now: (() => string) | undefined): void;
}

/** Kills one claw after the other and restarts each. Runs until the signal aborts. */
export async function runFaultInjection(options: FaultInjectionOptions, signal: AbortSignal): Promise<void> {
  const { seats, speed } = options;
  let waitMs = FIRST_LOSS_AFTER_MS;
  for (let turn = 1; ; turn += 1) {
    // Wait until all claws send heartbeats: before that, their agents still have their first leases.
    await until(() => seats.every((one) => one.beats || !one.runs), signal);
    await pause(waitMs / speed, signal);
    const seat = seats[turn % seats.length];
    if (seat === undefined || signal.aborted) return;
    options.onLost(seat);
    await loseOnce(seat, options, signal);
    waitMs = NEXT_LOSS_AFTER_MS;
  }
}

async function loseOnce(seat: ClawSeat, options: FaultInjectionOptions, signal: AbortSignal): Promise<void> {
  const { fleet, pace, speed, note, notice } = options;
  const { name } = seat;
  const awayMs = AWAY_MS / speed;

  const pid = await seat.kill();
  const killedAt = performance.now();
  const sinceMs = (): number => performance.now() - killedAt;
  note(`${name} was killed${processText(pid)} without a goodbye: its leases expire within ${spanOf(pace.leaseMs)}`);
  notice(() => {
    const leftMs = pace.leaseMs - sinceMs();
    const when = leftMs > 0 ? `within ${spanOf(leftMs)}` : "at any moment";
    return `${name} was killed without a goodbye: its leases expire ${when}.`;
  });
  // Restart it in any case after a timeout: another process may send heartbeats for its agents, or the service may be
  // unavailable.
  const timeoutMs = 2 * pace.leaseMs + 10_000;
  await until(() => fleet.tally(name).offline === sizeOf(fleet.tally(name)) || sinceMs() > timeoutMs, signal);
  if (signal.aborted) return;
  note(`${name} is offline: ${counted(fleet.tally(name).offline, "agent")}, ${spanOf(sinceMs())} after it was killed`);

  const startsAt = performance.now() + awayMs;
  notice(() => `All of ${name} is offline. It starts again in ${spanOf(startsAt - performance.now())}.`);
  await pause(awayMs, signal);
  if (signal.aborted) return;
  note(`${name} starts again${processText(seat.start())}`);
  notice(undefined);
  const restartedAt = performance.now();
  await until(() => fleet.tally(name).offline === 0 || performance.now() - restartedAt > timeoutMs, signal);
  if (!signal.aborted) note(`${name} is back: ${counted(sizeOf(fleet.tally(name)), "agent")}`);
}

async function until(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition() && !signal.aborted) await pause(CHECK_EVERY_MS, signal);
}
