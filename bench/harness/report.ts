import { readFile } from "node:fs/promises";
import { short } from "./figures.ts";
import type { Machine } from "./machine.ts";
import { type Measure, verdict } from "./scenario.ts";

export interface ScenarioReport {
  readonly name: string;
  readonly title: string;
  /** The start in UTC, and the duration. */
  readonly at: string;
  readonly seconds: number;
  readonly settings: Settings;
  /** The share of processor time that other processes used meanwhile, 0 to 1. Absent: unknown. */
  readonly elsewhere?: number;
  /** Notes on omissions and problems. */
  readonly notes: readonly string[];
  readonly measures: readonly Measure[];
}

export interface Settings {
  readonly rounds: number;
  readonly roundMs: number;
  readonly peers: boolean;
  readonly full: boolean;
  /** The measured commit. */
  readonly commit: string;
  readonly postgresql: string;
  /** The versions of measured peers. */
  readonly versions: Readonly<Record<string, string>>;
}

export interface Report {
  readonly machine: Machine;
  readonly scenarios: readonly ScenarioReport[];
}

/** Reads `results.json`; undefined if the file does not exist. */
export async function readReport(file: string): Promise<Report | undefined> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  return text === undefined ? undefined : JSON.parse(text);
}

/** Figures are doubtful if other processes used more than this share of the machine. */
const DISTURBED = 0.05;

/** A table in Markdown, which is readable on a terminal as well. */
export function tableOf({ measures }: Pick<ScenarioReport, "measures">): string {
  const head = ["measure", "median", "spread", "must", "aim", "reached"];
  const rows = measures.map((measure) => {
    const { name, unit, figure, must, aim, more } = measure;
    const goal = (value: number | undefined) =>
      value === undefined ? "" : `${more === true ? "≥" : "≤"} ${short(value)}`;
    const spread = figure.rounds === 1 ? "one round" : `${short(figure.least)} – ${short(figure.most)}`;
    return [name, `${short(figure.median)} ${unit}`.trim(), spread, goal(must), goal(aim), verdict(measure)];
  });
  const widths = head.map((text, column) => Math.max(text.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

/** The table with its title and remarks. */
export function sectionOf(scenario: ScenarioReport, heading: string): string {
  return [`${heading} ${scenario.title}`, tableOf(scenario), remarksOf(scenario)]
    .filter((part) => part !== "")
    .join("\n\n");
}

function remarksOf({ at, seconds, settings, elsewhere, notes }: ScenarioReport): string {
  const { rounds, roundMs, commit, postgresql, versions } = settings;
  const peers = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const parts = [
    `${at.slice(0, 16).replace("T", " ")} UTC, up to ${rounds} rounds of ${roundMs / 1_000} s, ${seconds} s in all`,
  ];
  parts.push([`commit ${commit}`, `PostgreSQL ${postgresql}`, ...peers].join(", "));
  if (elsewhere !== undefined) {
    const share = `${Math.round(elsewhere * 100)} % of the processors`;
    parts.push(
      elsewhere > DISTURBED ? `**disturbed: others had ${share} meanwhile**` : `others had ${share} meanwhile`,
    );
  }
  return [`${parts.join("; ")}.`, ...notes.map((note) => `Note: ${note}.`)].join("\n");
}

export function headOf({ processor, cores, memoryGiB, system, node, versions, pinned }: Machine): string {
  const libraries = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `${processor}, ${cores} cores, ${memoryGiB} GiB, ${system}.`,
    `Node ${node}, ${libraries.join(", ")}.`,
    pinned
      ? "The service, its peers and PostgreSQL on one core, the load generator on another."
      : "Nothing is pinned: there are no two cores, or no `taskset` (util-linux).",
  ].join("\n");
}
