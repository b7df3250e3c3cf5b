/** A lease is this many heartbeat intervals, so that two lost heartbeats harm nobody. */
export const INTERVALS_PER_LEASE = 3;
/** A unary heartbeat may ask for no longer lease than this (agents that are started by cron each hour). */
export const LONGEST_LEASE_MS = 3_600_000;
/** However large the fleet, an agent is asked at least this often: a lease of days would tell nobody anything. */
export const LONGEST_INTERVAL_MS = 3_600_000;
/** The announced interval is shortened by up to this share, at random, so that a fleet does not beat in step. */
export const INTERVAL_JITTER = 0.1;
/** A new stream's second beat comes after this share of the interval at the earliest. */
export const SHORTEST_FIRST_SHARE = 0.1;
/** Within one lease the interval grows at most by this factor: an agent that obeys an older one is still in time. */
export const GROWTH_PER_LEASE = 1.5;

/** What agents are told: how long until the next heartbeat at the latest, and how long the lease is. */
export interface Pace {
  readonly intervalMs: number;
  readonly leaseMs: number;
}

export interface PaceLimits {
  /** Milliseconds; the interval is never shorter. */
  readonly shortestIntervalMs: number;
  /** What the deployment wants to bear. */
  readonly heartbeatsPerSecond: number;
}

/** The pace that a fleet of this size wants. */
export function paceFor(agents: number, limits: PaceLimits): Pace {
  const borne = Math.ceil((agents / limits.heartbeatsPerSecond) * 1_000);
  return paceOf(Math.min(LONGEST_INTERVAL_MS, Math.max(limits.shortestIntervalMs, borne)));
}

export function paceOf(intervalMs: number): Pace {
  return { intervalMs, leaseMs: intervalMs * INTERVALS_PER_LEASE };
}

/** The next step from `current` towards `wanted`, taken at most once a lease. Shortening needs no caution. */
export function approachPace(current: Pace, wanted: Pace): Pace {
  return paceOf(Math.min(wanted.intervalMs, Math.floor(current.intervalMs * GROWTH_PER_LEASE)));
}

/** The interval to announce. Jitter only ever shortens it. `random` is uniform in [0, 1). */
export function announcedIntervalMs(pace: Pace, random: number): number {
  return Math.max(1, Math.floor(pace.intervalMs * (1 - INTERVAL_JITTER * random)));
}

/**
 * The interval to announce to a new stream until its second beat: uniform over the whole interval, so that a fleet that
 * connected at one moment beats evenly from then on. `random` is uniform in [0, 1).
 */
export function firstIntervalMs(pace: Pace, random: number): number {
  return Math.max(1, Math.floor(pace.intervalMs * (1 - (1 - SHORTEST_FIRST_SHARE) * random)));
}

/** The lease that a unary heartbeat gets for the one it asked for. */
export function grantedLeaseMs(pace: Pace, askedMs: number | undefined): number {
  if (askedMs === undefined) return pace.leaseMs;
  return Math.max(pace.leaseMs, Math.min(LONGEST_LEASE_MS, Math.round(askedMs)));
}
