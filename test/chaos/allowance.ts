import type { Fault, Stop } from "./fault-log.ts";
import type { Instant } from "./ledger.ts";

export interface Promises {
  /** Three intervals. */
  readonly leaseMs: number;
  /** The tolerated time of an expiry after the end of the lease on a busy machine. */
  readonly slackMs: number;
  /** The number of claws. */
  readonly claws: number;
}

/** When a mass silence holds the brake, a fleet that really stopped is offline within so many leases. */
const BRAKED_LEASES = 6;
/** More than this share of the claws, and at least so many of them, silent within one lease: a mass silence. */
const MASS_SHARE = 0.2;
const MASS_CLAWS = 3;

/**
 * The time by which an agent that fell silent must be offline, by the test's own log of faults alone: one lease
 * (six in a mass silence), and for each outage of the service meanwhile its length and one lease more.
 */
export function offlineBy(
  stoppedAt: Instant,
  faults: readonly Fault[],
  stops: readonly Stop[],
  { leaseMs, slackMs, claws }: Promises,
): Instant {
  const outages = merged(faults.filter(({ outage }) => outage));
  const due = (leases: number) => allowed(stoppedAt, stoppedAt + leases * leaseMs + slackMs, outages, leaseMs);
  const masses = massSilences(stops, claws, leaseMs);
  const braked = masses.some(
    (at) => at - leaseMs <= stoppedAt && stoppedAt <= allowed(at, at + 6 * leaseMs, outages, leaseMs),
  );
  return due(braked ? BRAKED_LEASES : 1);
}

interface Outage {
  readonly from: Instant;
  readonly until: Instant;
}

/** Later deadlines meet more outages, so it repeats until nothing is added. */
function allowed(stoppedAt: Instant, due: Instant, outages: readonly Outage[], leaseMs: number): Instant {
  for (let deadline = due; ; ) {
    // An outage that was over a lease before the silence has no effect any more.
    const met = outages.filter(({ from, until }) => from <= deadline && until + leaseMs >= stoppedAt);
    const next = met.reduce((sum, { from, until }) => sum + (until - from) + leaseMs, due);
    if (next <= deadline) return deadline;
    deadline = next;
  }
}

/** Overlapping outages count as one. An outage that is not over lasts for ever. */
function merged(faults: readonly Fault[]): Outage[] {
  const sorted = faults
    .map(({ from, until }) => ({ from, until: until ?? Number.POSITIVE_INFINITY }))
    .sort((one, other) => one.from - other.from);
  const outages: { from: Instant; until: Instant }[] = [];
  for (const outage of sorted) {
    const last = outages.at(-1);
    if (last !== undefined && outage.from <= last.until) last.until = Math.max(last.until, outage.until);
    else outages.push(outage);
  }
  return outages;
}

/** The moments with so many silent claws that the service may see a mass silence. */
export function massSilences(stops: readonly Stop[], claws: number, leaseMs: number): Instant[] {
  const silences = stops.filter(({ how }) => how !== "left");
  return silences
    .map(({ at }) => at)
    .filter((moment) => {
      // Leases end up to an interval apart, and claws that are still silent count: two leases of silences may
      // fall into one.
      const silent = new Set(
        silences
          .filter(({ at, until }) => at <= moment && (until === undefined || until + leaseMs >= moment))
          .filter(({ at }) => at >= moment - 2 * leaseMs)
          .map(({ claw }) => claw),
      );
      return silent.size >= MASS_CLAWS && silent.size > MASS_SHARE * claws;
    });
}
