import { duration, wholeNumber } from "./setting.ts";

/** Heartbeats, leases, and how long the history of the fleet is kept and watched. */
export const FLEET_SETTINGS = {
  heartbeatInterval: duration(
    {
      description:
        "the shortest time between two heartbeats of an agent; a lease is three intervals; below 200ms, a lease is too short to detect an outage in time",
    },
    "10s",
    "100ms",
    "10m",
  ),
  heartbeatsPerSecond: wholeNumber(
    { description: "target heartbeats per second of the deployment; the interval grows with the fleet to keep to it" },
    10_000,
    1,
    1_000_000,
  ),
  firstLease: duration(
    { description: "how long a new agent may take until its first heartbeat" },
    "60s",
    "100ms",
    "24h",
  ),
  transitionRetention: duration(
    {
      description:
        "how long transitions are kept; they are dropped in partitions of a million, so some are kept longer",
    },
    "168h",
    "1s",
    "87600h",
  ),
  transitionLimit: wholeNumber(
    { description: "how many transitions are kept at most, even if they are younger than the retention" },
    10_000_000,
    1,
    1_000_000_000_000,
  ),
  watchMaxAge: duration(
    { description: "the age, give or take a quarter, at which the server asks a watch stream to reconnect" },
    "30m",
    "1s",
    "24h",
  ),
};
