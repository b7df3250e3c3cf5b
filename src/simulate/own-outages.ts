import { currentMoment, type Moment, msSince } from "harborforge-agents-client/internal";

/** The interval of the signs of life that a claw gives, in milliseconds. */
export const SIGN_EVERY_MS = 250;
/** Outages that ended longer ago are forgotten. A lease ends at most an hour after the last heartbeat. */
const FORGET_AFTER_MS = 3_600_000;

/**
 * Measures when a claw of the simulation did not run: its process was suspended or has ended, the machine slept or was too
 * busy, or it had no network. Its agents sent no heartbeats then, so it is no fault of the service that their leases expired.
 */
export class OwnOutages {
  #lastSign: Moment = currentMoment();
  /** A process takes a moment to start, which is no outage. */
  #hasStarted = false;
  #outages: { readonly ended: Moment; readonly ms: number }[] = [];

  /** The claw runs. To be called every `SIGN_EVERY_MS`. */
  sign(): void {
    const ms = msSince(this.#lastSign) - SIGN_EVERY_MS;
    this.#lastSign = currentMoment();
    const started = this.#hasStarted;
    this.#hasStarted = true;
    if (!started || ms < SIGN_EVERY_MS) return;
    this.#outages = this.#outages.filter(({ ended }) => msSince(ended) < FORGET_AFTER_MS);
    this.#outages.push({ ended: this.#lastSign, ms });
  }

  /** For how long the claw did not run, in outages of the last `withinMs`, with the present one. */
  lengthMs(withinMs: number): number {
    const present = Math.max(0, msSince(this.#lastSign) - SIGN_EVERY_MS);
    const recent = this.#outages.filter(({ ended }) => msSince(ended) < withinMs);
    return recent.reduce((sum, { ms }) => sum + ms, present);
  }
}
