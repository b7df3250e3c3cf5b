import type { Scenario } from "../harness/scenario.ts";
import { attacks } from "./attacks.ts";
import { calls } from "./calls.ts";
import { fanOut } from "./fan-out.ts";
import { fleets, growth } from "./fleets.ts";
import { heartbeats } from "./heartbeats.ts";
import { leaseEnds } from "./lease-ends.ts";
import { manyWatchers } from "./many-watchers.ts";
import { memory } from "./memory.ts";
import { news } from "./news.ts";
import { rules } from "./rules.ts";
import { sizing } from "./sizing.ts";
import { snapshot } from "./snapshot.ts";
import { stalled } from "./stalled.ts";
import { starting } from "./starting.ts";
import { transitions } from "./transitions.ts";

/** All scenarios in the order of their runs. */
export const SCENARIOS: readonly Scenario[] = [
  heartbeats,
  growth,
  memory,
  news,
  leaseEnds,
  transitions,
  fanOut,
  snapshot,
  calls,
  starting,
  sizing,
  fleets,
  manyWatchers,
  stalled,
  rules,
  attacks,
];
