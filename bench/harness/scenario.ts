import { type Figure, figure } from "./figures.ts";
import type { Stage } from "./stage.ts";

/** What the command line asked for. */
export interface Asked {
  /** Of which the median is taken. */
  readonly rounds: number;
  /** How long one round counts, in milliseconds. */
  readonly roundMs: number;
  /** Whether others are measured beside the service. */
  readonly peers: boolean;
  /** The large fleets, which take many minutes. */
  readonly full: boolean;
  /** Says what goes on. */
  tell(line: string): void;
  /** Says what the result has to say as well: what was left out, or was not as it should be. */
  note(line: string): void;
}

/** One line of the table. */
export interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly figure: Figure;
  /** What has to be reached, and what is aimed for; undefined where the measure only informs. */
  readonly must?: number;
  readonly aim?: number;
  /** Default: less is better. */
  readonly more?: boolean;
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** Only where the large fleets are asked for. */
  readonly full?: boolean;
  /** Only where it is asked for by name. */
  readonly named?: boolean;
  /** The measures, with names that differ from each other: charts find them by these. */
  run(stage: Stage, asked: Asked): Promise<readonly Measure[]>;
}

export type Verdict = "aim" | "must" | "missed" | "–";

export function verdict({ figure, must, aim, more = false }: Measure): Verdict {
  const reaches = (goal: number | undefined) =>
    goal !== undefined && (more ? figure.median >= goal : figure.median <= goal);
  if (must === undefined && aim === undefined) return "–";
  if (reaches(aim)) return "aim";
  return reaches(must) ? "must" : "missed";
}

/** On the small scale, of what takes long and differs little from round to round. */
const FEW_ROUNDS = 3;

export function fewRounds({ rounds, full }: Asked): number {
  return full ? rounds : Math.min(rounds, FEW_ROUNDS);
}

/** A line of the table that has nothing to reach. */
export function informs(name: string, unit: string, values: readonly number[]): Measure {
  return { name, unit, figure: figure(values) };
}

/** Above it, what was measured may have been the load generator. */
const LOAD_LIMIT = 0.9;

/** How busy the load generator was with each of the subjects, at most; a note where it was the limit. */
export function loadShare(asked: Asked, shares: Readonly<Record<string, readonly number[]>>): Measure {
  for (const [name, values] of Object.entries(shares)) {
    const share = figure(values).median;
    if (share > LOAD_LIMIT) asked.note(`the load generator was the limit of "${name}" (${Math.round(share * 100)} %)`);
  }
  return informs("load generator: share of its core", "%", Object.values(shares).flatMap(percents));
}

function percents(shares: readonly number[]): number[] {
  return shares.map((share) => share * 100);
}
