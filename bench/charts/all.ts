import type { Report } from "../harness/report.ts";
import { findIn } from "./find.ts";
import { goalsChart } from "./goals.ts";
import { growthChart } from "./growth.ts";
import { heartbeatsChart } from "./heartbeats.ts";
import { newsChart } from "./news.ts";

export interface Drawing {
  readonly file: string;
  readonly svg: string;
}

/** All charts that these results allow. */
export function chartsOf(report: Report): Drawing[] {
  const find = findIn(report);
  const drawn = [
    { file: "goals.svg", svg: goalsChart(report) },
    { file: "heartbeats.svg", svg: heartbeatsChart(find) },
    { file: "growth.svg", svg: growthChart(report) },
    { file: "news.svg", svg: newsChart(find) },
  ];
  return drawn.flatMap(({ file, svg }) => (svg === undefined ? [] : [{ file, svg }]));
}
