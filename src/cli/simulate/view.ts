import type { FleetPace } from "../../client/agent-calls.ts";
import type { AgentView, TransitionView } from "../../client/views.ts";
import type { Tally, Totals } from "./fleet.ts";

/** A claw, as the demo shows it. */
export interface ClawLine {
  readonly name: string;
  readonly tally: Tally;
  /** What its process does, in a few words. */
  readonly doing: string;
}

/** Everything that the demo shows at a moment: what is drawn depends on nothing else. */
export interface DemoView {
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
  readonly totals: Totals;
  /** What is going on beyond the counts: a claw that was killed, a connection that is cut. */
  readonly notice: string | undefined;
  /** The newest event that is no transition: a process that started, a beat that was refused. */
  readonly note: string;
  readonly exhausted: readonly AgentView[];
  /** The newest first. */
  readonly newest: readonly TransitionView[];
}
