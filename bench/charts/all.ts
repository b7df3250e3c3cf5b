import type { Report } from "../harness/report.ts";
import type { Measure } from "../harness/scenario.ts";
import { goalsChart } from "./goals.ts";
import { growthChart } from "./growth.ts";
import { heartbeatsChart } from "./heartbeats.ts";
import { newsChart } from "./news.ts";

export interface Drawing {
  readonly file: string;
  readonly svg: string;
}

/** A measure of a scenario by its name, where it was measured. */
export type Find = (scenario: string, name: string) => Measure | undefined;

/** All that can be drawn of these results. */
export function chartsOf(report: Report): Drawing[] {
  const find: Find = (scenario, name) => {
    const measures = report.scenarios.find((one) => one.name === scenario)?.measures;
    return measures?.find((measure) => measure.name === name && measure.figure.rounds > 0);
  };
  const drawn = [
    { file: "goals.svg", svg: goalsChart(report) },
    { file: "heartbeats.svg", svg: heartbeatsChart(find) },
    { file: "growth.svg", svg: growthChart(report) },
    { file: "news.svg", svg: newsChart(find) },
  ];
  return drawn.flatMap(({ file, svg }) => (svg === undefined ? [] : [{ file, svg }]));
}
