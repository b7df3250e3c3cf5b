/** A lease is this many heartbeat intervals, so that an agent stays online when two heartbeats are lost. */
export const INTERVALS_PER_LEASE = 3;
/** The longest lease that a unary heartbeat may ask for, in milliseconds: for agents that cron starts each hour. */
export const LONGEST_LEASE_MS = 3_600_000;
/** The longest interval, for any size of the fleet. With longer leases a status would say nothing. */
export const LONGEST_INTERVAL_MS = 3_600_000;
/** The announced interval is shortened by a random share up to this, so that agents do not beat at the same moment. */
export const INTERVAL_JITTER = 0.1;
/** The second beat of a new stream comes after at least this share of the interval. */
export const SHORTEST_FIRST_SHARE = 0.1;
/**
 * Within one lease the interval grows by at most this factor. An agent that still uses an older interval is in time.
 */
export const GROWTH_PER_LEASE = 1.5;

/** The time until the next heartbeat at the latest, and the length of the lease. */
export interface Pace {
  readonly intervalMs: number;
  readonly leaseMs: number;
}

export interface PaceLimits {
  /** In milliseconds; the interval is never shorter. */
  readonly shortestIntervalMs: number;
  /** Target heartbeats per second of the whole deployment. */
  readonly heartbeatsPerSecond: number;
}

/** The pace at which a fleet of this size sends the target number of heartbeats. */
export function paceFor(agents: number, limits: PaceLimits): Pace {
  const targetMs = Math.ceil((agents / limits.heartbeatsPerSecond) * 1_000);
  return paceOf(Math.min(LONGEST_INTERVAL_MS, Math.max(limits.shortestIntervalMs, targetMs)));
}

/** The pace of an interval in milliseconds. */
export function paceOf(intervalMs: number): Pace {
  return { intervalMs, leaseMs: intervalMs * INTERVALS_PER_LEASE };
}

/**
 * The next step from `current` towards `wanted`. Take at most one in each lease. An interval may shrink in one step.
 */
export function approachPace(current: Pace, wanted: Pace): Pace {
  return paceOf(Math.min(wanted.intervalMs, Math.floor(current.intervalMs * GROWTH_PER_LEASE)));
}

/**
 * The interval to announce. Jitter only shortens it.
 *
 * @param random uniform in [0, 1)
 */
export function announcedIntervalMs(pace: Pace, random: number): number {
  return Math.max(1, Math.floor(pace.intervalMs * (1 - INTERVAL_JITTER * random)));
}

/**
 * The interval to announce to a new stream until its second beat. It is uniform over the whole interval, so that a
 * fleet that connects at one moment spreads out.
 *
 * @param random uniform in [0, 1)
 */
export function firstIntervalMs(pace: Pace, random: number): number {
  return Math.max(1, Math.floor(pace.intervalMs * (1 - (1 - SHORTEST_FIRST_SHARE) * random)));
}

/**
 * The lease of a unary heartbeat in milliseconds: the requested one, but at least the fleet's and at most
 * `LONGEST_LEASE_MS`.
 */
export function grantedLeaseMs(pace: Pace, requestedMs: number | undefined): number {
  if (requestedMs === undefined) return pace.leaseMs;
  return Math.max(pace.leaseMs, Math.min(LONGEST_LEASE_MS, Math.round(requestedMs)));
}
