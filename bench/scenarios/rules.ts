import { ratio } from "../harness/figures.ts";
import { Worker } from "../harness/processes.ts";
import { informs, type Measure, type Scenario } from "../harness/scenario.ts";
import type { RuleFigures } from "../load/rules.ts";

/** The cost of validating requests by the rules of the contract. */
export const rules: Scenario = {
  name: "rules",
  title: "Cost of the contract's rules for a call",
  named: true,
  async run(_stage, bench) {
    await using load = new Worker("load/rules.ts", "service", ["--experimental-test-module-mocks"]);
    const all: RuleFigures[] = [];
    for (let round = -1; round < bench.rounds; round += 1) {
      const { rounds } = await load.do<{ rounds: RuleFigures[] }>("round");
      // The first one is a warm-up.
      if (round >= 0) all.push(...rounds);
    }
    const names = [...new Set(all.map(({ what }) => what))];
    return names.flatMap((name): Measure[] => {
      const some = all.filter(({ what }) => what === name);
      const each = (value: (figures: RuleFigures) => number) => some.map(value);
      return [
        informs(
          `${name}: the check alone`,
          "µs",
          each(({ aloneUs }) => aloneUs),
        ),
        {
          name: `${name}: checked ÷ not checked`,
          unit: "×",
          figure: ratio(
            each(({ withUs }) => withUs),
            each(({ withoutUs }) => withoutUs),
          ),
        },
      ];
    });
  },
};
