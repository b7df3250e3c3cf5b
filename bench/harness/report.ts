import { short } from "./figures.ts";
import type { Machine } from "./machine.ts";
import { type Measure, verdict } from "./scenario.ts";

export interface ScenarioReport {
  readonly name: string;
  readonly title: string;
  readonly measures: readonly Measure[];
  /** Why there are none. */
  readonly skipped?: string;
}

export interface Report {
  readonly machine: Machine;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly scenarios: readonly ScenarioReport[];
}

/** As text for a terminal, which is Markdown as well. */
export function tableOf({ title, measures, skipped }: ScenarioReport): string {
  if (skipped !== undefined) return `## ${title}\n\nSkipped: ${skipped}`;
  const head = ["measure", "median", "spread", "must", "aim", "reached"];
  const rows = measures.map((measure) => {
    const { name, unit, figure, must, aim, more } = measure;
    const goal = (value: number | undefined) =>
      value === undefined ? "" : `${more === true ? "≥" : "≤"} ${short(value)}`;
    const spread = `${short(figure.least)} – ${short(figure.most)}`;
    return [name, `${short(figure.median)} ${unit}`, spread, goal(must), goal(aim), verdict(measure)];
  });
  const widths = head.map((text, column) => Math.max(text.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [`## ${title}`, "", line(head), rule, ...rows.map(line)].join("\n");
}

export function headOf({ machine, settings }: Report): string {
  const { processor, cores, memoryGiB, system, node, versions, pinned, date } = machine;
  const libraries = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `${date}, ${processor}, ${cores} cores, ${memoryGiB} GiB, ${system}`,
    `Node ${node}, ${libraries.join(", ")}`,
    pinned ? "service and PostgreSQL on one core, the load on another" : "nothing pinned",
    Object.entries(settings)
      .map(([name, value]) => `${name} ${value}`)
      .join(", "),
  ].join("\n");
}
