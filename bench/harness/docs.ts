import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { chartsOf } from "../charts/all.ts";
import { SCENARIOS } from "../scenarios/all.ts";
import { TOP } from "./processes.ts";
import { headOf, type Report, readReport, sectionOf } from "./report.ts";
import { sizingOf } from "./sizing.ts";

const RESULTS = join(TOP, "docs/performance.json");
const PAGE = join(TOP, "docs/performance.md");
const CHARTS = join(TOP, "docs/charts");

const SIZING_BEGIN = "<!-- sizing: made by `npm run bench -- --docs` -->";
const SIZING_END = "<!-- end of the sizing -->";
const BEGIN = "<!-- results: made by `npm run bench -- --docs` -->";
const END = "<!-- end of the results -->";

/** Replaces older results of the same scenarios in the documentation, and redraws tables and charts. */
export async function updateDocs(report: Report): Promise<void> {
  const older = await readReport(RESULTS);
  const merged = older === undefined ? report : merge(older, report);
  await writeFile(RESULTS, `${JSON.stringify(merged, null, 2)}\n`);
  await redrawDocs();
}

export async function redrawDocs(): Promise<void> {
  const report = await readReport(RESULTS);
  if (report === undefined) throw new Error(`there are no results in ${RESULTS}`);
  await mkdir(CHARTS, { recursive: true });
  for (const { file, svg } of chartsOf(report)) await writeFile(join(CHARTS, file), svg);
  await writeFile(PAGE, withResults(await readFile(PAGE, "utf8"), report));
}

/** The page with this report, and the sizing that follows from it, between their markers. */
export function withResults(page: string, report: Report): string {
  const sections = report.scenarios.map((scenario) => sectionOf(scenario, "###"));
  const results = [headOf(report.machine), ...sections].join("\n\n");
  return between(between(page, BEGIN, END, results), SIZING_BEGIN, SIZING_END, sizingOf(report));
}

function between(page: string, begin: string, end: string, block: string): string {
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the page has no place for this: ${begin} … ${end}`);
  return [page.slice(0, from) + begin, block, page.slice(to)].join("\n\n");
}

/** Merges two reports in the order of scenarios. Figures of different machines are never mixed. */
export function merge(older: Report, newer: Report): Report {
  const { machine } = newer;
  if (older.machine.processor !== machine.processor || older.machine.cores !== machine.cores) return newer;
  const renewed = new Set(newer.scenarios.map(({ name }) => name));
  const all = [...newer.scenarios, ...older.scenarios.filter(({ name }) => !renewed.has(name))];
  const order = SCENARIOS.map(({ name }) => name);
  const scenarios = all.sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
  return { machine, scenarios };
}
