import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { chartsOf } from "../charts/all.ts";
import { SCENARIOS } from "../scenarios/all.ts";
import { TOP } from "./processes.ts";
import { headOf, type Report, readReport, sectionOf } from "./report.ts";

const RESULTS = join(TOP, "docs/performance.json");
const PAGE = join(TOP, "docs/performance.md");
const CHARTS = join(TOP, "docs/charts");

const BEGIN = "<!-- results: made by `npm run bench -- --docs` -->";
const END = "<!-- end of the results -->";

/** Puts the results in place of older ones of the same scenarios, and makes what is drawn from them anew. */
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

/** The page with this report between the two marks. */
export function withResults(page: string, report: Report): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`the page has no place for results (${BEGIN} … ${END})`);
  const sections = report.scenarios.map((scenario) => sectionOf(scenario, "###"));
  const block = [BEGIN, headOf(report.machine), ...sections, END].join("\n\n");
  return page.slice(0, begin) + block + page.slice(end + END.length);
}

/** In the order in which they run. Figures of two machines do not stand side by side. */
export function merge(older: Report, newer: Report): Report {
  const { machine } = newer;
  if (older.machine.processor !== machine.processor || older.machine.cores !== machine.cores) return newer;
  const renewed = new Set(newer.scenarios.map(({ name }) => name));
  const all = [...newer.scenarios, ...older.scenarios.filter(({ name }) => !renewed.has(name))];
  const order = SCENARIOS.map(({ name }) => name);
  const scenarios = all.sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
  return { machine, scenarios };
}
