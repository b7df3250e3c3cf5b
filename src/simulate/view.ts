import type { AgentView, TransitionView } from "harborforge-agents-client";
import type { Tally, Totals } from "./fleet-tally.ts";
import type { FleetPace } from "./service-calls.ts";

/** A claw in the view. */
export interface ClawLine {
  readonly name: string;
  readonly tally: Tally;
  /** Whether it runs: it is not killed, ended or stopped. */
  readonly runs: boolean;
  /** The state of its process in a few words. */
  readonly doing: string;
}

/** The complete state that a simulation shows at a moment. */
export interface SimulationView {
  readonly address: string;
  readonly elapsedMs: number;
  /** The present, in milliseconds since 1970. */
  readonly now: number;
  readonly pace: FleetPace;
  readonly claws: readonly ClawLine[];
  readonly all: Tally;
  readonly claimed: number;
  /** Rejected claims, by reason. */
  readonly refused: ReadonlyMap<string, number>;
  /** Rejected beats, by reason. */
  readonly refusedBeats: ReadonlyMap<string, number>;
  readonly totals: Totals;
  /** The number of claws that were killed on purpose. */
  readonly killed: number;
  /** Expired leases of agents whose claw was not killed: each is a fault. */
  readonly lostAlive: number;
  /** Expired leases of agents whose claw did not run or had no network at that time: an outage of the simulation itself. */
  readonly lostInOutage: number;
  /** The first and the newest revision of the watch. */
  readonly revisions: readonly [from: bigint, to: bigint];
  /** The current notice, e.g. a killed claw or a broken connection. */
  readonly notice: string | undefined;
  /** The newest event that is not a transition, e.g. a started process or a rejected beat. */
  readonly note: string;
  readonly exhausted: readonly AgentView[];
  /** Newest first. */
  readonly newest: readonly TransitionView[];
}
