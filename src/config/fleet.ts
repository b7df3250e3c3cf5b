import { duration, wholeNumber } from "./setting.ts";

/** Heartbeats, leases, and how long the history of the fleet is kept and watched. */
export const FLEET_SETTINGS = {
  heartbeatInterval: duration(
    {
      description:
        "the shortest time between two heartbeats of an agent; a lease is three intervals; with an interval below 200ms, leases are too short to detect an outage in time",
    },
    "10s",
    "100ms",
    "10m",
  ),
  heartbeatsPerSecond: wholeNumber(
    { description: "target heartbeats per second of the deployment; the interval grows with the fleet" },
    10_000,
    1,
    1_000_000,
  ),
  firstLease: duration({ description: "the lease of a new agent, until its first heartbeat" }, "60s", "100ms", "24h"),
  transitionRetention: duration(
    {
      description:
        "how long transitions are kept; they are removed in partitions of a million, so some are kept longer",
    },
    "168h",
    "1s",
    "87600h",
  ),
  transitionLimit: wholeNumber(
    { description: "how many of the newest transitions are kept, even if older ones are younger than the retention" },
    10_000_000,
    1,
    1_000_000_000_000,
  ),
  wakesPerSecond: wholeNumber(
    { description: "maximum offers of wakes a second of the deployment, and as many at once" },
    100,
    1,
    100_000,
  ),
  offersPerClaw: wholeNumber({ description: "maximum open offers of wakes of one claw" }, 50, 1, 10_000),
  wakeRetention: duration(
    { description: "how long a wake is kept after its end; a wake that has not expired is kept in any case" },
    "168h",
    "1s",
    "87600h",
  ),
  watchMaxAge: duration(
    { description: "the maximum age of a watch stream, ± a quarter; then the client resumes it, on any replica" },
    "30m",
    "1s",
    "24h",
  ),
};
