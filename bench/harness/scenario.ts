import { type Figure, figure } from "./figures.ts";
import type { Stage } from "./stage.ts";

/** The options of the command line. */
export interface BenchRun {
  /** The number of rounds; the median counts. */
  readonly rounds: number;
  /** The duration of a round, in milliseconds. */
  readonly roundMs: number;
  /** Whether peers are measured as well. */
  readonly peers: boolean;
  /** Whether to measure the large fleets, which take many minutes. */
  readonly full: boolean;
  /** Reports progress. */
  log(line: string): void;
  /** Adds a note to the result, on omissions or problems. */
  note(line: string): void;
}

/** A row of the table. */
export interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly figure: Figure;
  /** The requirement and the aim; undefined if the measure is only information. */
  readonly must?: number;
  readonly aim?: number;
  /** Whether more is better; default: less is better. */
  readonly more?: boolean;
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** Runs only with `--scale full`. */
  readonly full?: boolean;
  /** Runs only with `--only`. */
  readonly named?: boolean;
  /** Returns the measures. Their names are unique, because charts find them by name. */
  run(stage: Stage, bench: BenchRun): Promise<readonly Measure[]>;
}

export type Verdict = "aim" | "must" | "missed" | "–";

export function verdict({ figure, must, aim, more = false }: Measure): Verdict {
  const reaches = (goal: number | undefined) =>
    goal !== undefined && (more ? figure.median >= goal : figure.median <= goal);
  if (must === undefined && aim === undefined) return "–";
  if (reaches(aim)) return "aim";
  return reaches(must) ? "must" : "missed";
}

/** The number of rounds of long scenarios with little variance, on the small scale. */
const FEW_ROUNDS = 3;

export function fewRounds({ rounds, full }: BenchRun): number {
  return full ? rounds : Math.min(rounds, FEW_ROUNDS);
}

/** A row without a requirement. */
export function informs(name: string, unit: string, values: readonly number[]): Measure {
  return { name, unit, figure: figure(values) };
}

/** Above this share, the load generator may have been the limit. */
const LOAD_LIMIT = 0.9;

/** The largest share of the load generator's core for each subject. Adds a note if it was the limit. */
export function loadShare(bench: BenchRun, shares: Readonly<Record<string, readonly number[]>>): Measure {
  for (const [name, values] of Object.entries(shares)) {
    const share = figure(values).median;
    if (share > LOAD_LIMIT) bench.note(`the load generator was the limit of "${name}" (${Math.round(share * 100)} %)`);
  }
  return informs("load generator: share of its core", "%", Object.values(shares).flatMap(percents));
}

function percents(shares: readonly number[]): number[] {
  return shares.map((share) => share * 100);
}
