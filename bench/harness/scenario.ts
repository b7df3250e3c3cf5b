import type { Figure } from "./figures.ts";
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
