import type { AgentView, TransitionView } from "harborforge-agents-client";
import type { FleetPace } from "../cli/calls/agent-calls.ts";
import type { Tally, Totals } from "./simulated-fleet.ts";

/** A claw, as a simulation shows it. */
export interface ClawLine {
  readonly name: string;
  readonly tally: Tally;
  /** What its process does, in a few words. */
  readonly doing: string;
}

/** Everything that a simulation shows at a moment: what is drawn depends on nothing else. */
export interface SimulationView {
  readonly address: string;
  readonly elapsedMs: number;
  /** The present, in milliseconds since 1970. */
  readonly now: number;
  readonly pace: FleetPace;
  readonly claws: readonly ClawLine[];
  readonly all: Tally;
  readonly claimed: number;
  /** Claims refused, by reason. */
  readonly refused: ReadonlyMap<string, number>;
  /** Beats refused, by reason. */
  readonly refusedBeats: ReadonlyMap<string, number>;
  readonly totals: Totals;
  /** Claws that were killed on purpose so far. */
  readonly killed: number;
  /** Leases that ended although their claw was not killed: agents that beat, and were lost. */
  readonly lostAlive: number;
  /** The revision that the watch began with, and the one that it has come to. */
  readonly revisions: readonly [from: bigint, to: bigint];
  /** What is going on beyond the counts: a claw that was killed, a connection that is cut. */
  readonly notice: string | undefined;
  /** The newest event that is no transition: a process that started, a beat that was refused. */
  readonly note: string;
  readonly exhausted: readonly AgentView[];
  /** The newest first. */
  readonly newest: readonly TransitionView[];
}
