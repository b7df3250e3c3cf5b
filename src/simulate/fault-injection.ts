import type { FleetPace } from "../cli/calls/agent-calls.ts";
import { pause } from "../scheduling/timers.ts";
import type { ClawSeat } from "./claw-seat.ts";
import type { Fleet } from "./fleet-tally.ts";
import { sizeOf } from "./fleet-tally.ts";
import { processText, spanOf } from "./format.ts";

const FIRST_LOSS_AFTER_MS = 15_000;
const NEXT_LOSS_AFTER_MS = 45_000;
const AWAY_MS = 5_000;
const LOOK_EVERY_MS = 50;

export interface FaultInjectionOptions {
  readonly seats: readonly ClawSeat[];
  readonly fleet: Fleet;
  readonly pace: FleetPace;
  readonly speed: number;
  /** A claw is about to be killed: what its agents lose from now on is meant. */
  onLost(seat: ClawSeat): void;
  note(sentence: string): void;
  /** What is to be seen just now; undefined for nothing in particular. */
  notice(now: (() => string) | undefined): void;
}

/** Loses one claw after the other, and lets each come back. Goes on until the signal aborts. */
export async function runFaultInjection(options: FaultInjectionOptions, signal: AbortSignal): Promise<void> {
  const { seats, speed } = options;
  let waitMs = FIRST_LOSS_AFTER_MS;
  for (let turn = 1; ; turn += 1) {
    // A claw that was never heard is not missed: its agents still have their first leases.
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
  note(`${name} was killed${processText(pid)}, no goodbye: its leases end within ${spanOf(pace.leaseMs)}`);
  notice(() => {
    const leftMs = pace.leaseMs - sinceMs();
    const when = leftMs > 0 ? `within ${spanOf(leftMs)}` : "at any moment now";
    return `${name} was killed without a goodbye: its leases end ${when}.`;
  });
  // Somebody else may beat for one of its agents, or the service may be away: then it starts again all the same.
  const patienceMs = 2 * pace.leaseMs + 10_000;
  await until(() => fleet.tally(name).offline === sizeOf(fleet.tally(name)) || sinceMs() > patienceMs, signal);
  if (signal.aborted) return;
  note(`${name} is offline: ${fleet.tally(name).offline} agents, ${spanOf(sinceMs())} after it was killed`);

  const startsAt = performance.now() + awayMs;
  notice(() => `All of ${name} is offline. It starts again in ${spanOf(startsAt - performance.now())}.`);
  await pause(awayMs, signal);
  if (signal.aborted) return;
  note(`${name} starts again${processText(seat.start())}`);
  notice(undefined);
  const restartedAt = performance.now();
  await until(() => fleet.tally(name).offline === 0 || performance.now() - restartedAt > patienceMs, signal);
  if (!signal.aborted) note(`${name} is back: ${sizeOf(fleet.tally(name))} agents`);
}

async function until(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition() && !signal.aborted) await pause(LOOK_EVERY_MS, signal);
}
