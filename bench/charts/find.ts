import type { Report } from "../harness/report.ts";
import type { Measure } from "../harness/scenario.ts";

/** A measure of a scenario by its name, where it was measured. */
export type Find = (scenario: string, name: string) => Measure | undefined;

export function findIn({ scenarios }: Report): Find {
  return (scenario, name) => {
    const measures = scenarios.find((one) => one.name === scenario)?.measures;
    return measures?.find((measure) => measure.name === name && measure.figure.rounds > 0);
  };
}
