import type { Report } from "../harness/report.ts";
import type { Measure } from "../harness/scenario.ts";

/** Finds a measure of a scenario by name; undefined if it was not measured. */
export type Find = (scenario: string, name: string) => Measure | undefined;

export function findIn({ scenarios }: Report): Find {
  return (scenario, name) => {
    const measures = scenarios.find((one) => one.name === scenario)?.measures;
    return measures?.find((measure) => measure.name === name && measure.figure.rounds > 0);
  };
}
