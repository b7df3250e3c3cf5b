import type { Scenario } from "../harness/scenario.ts";
import { calls } from "./calls.ts";
import { fleets, growth } from "./fleets.ts";
import { heartbeats } from "./heartbeats.ts";
import { memory } from "./memory.ts";
import { starting } from "./starting.ts";

/** In the order in which they run. */
export const SCENARIOS: readonly Scenario[] = [heartbeats, growth, memory, calls, starting, fleets];
