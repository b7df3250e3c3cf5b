import { short } from "../harness/figures.ts";
import type { Report } from "../harness/report.ts";
import type { Measure } from "../harness/scenario.ts";
import { card, dot, line, linearAxis, logAxis, MARGIN, TOP, text, tickText, WIDTH } from "./svg.ts";

const HEIGHT = 260;
const LEFT = 44;
const RIGHT = 190;
const LABEL_HEIGHT = 18;
/** Such as `10 k agents: CPU a beat, service`. The name of the ratio has the size of the large fleet. */
const NAME = /^(?:(\d+) ([kM]) agents|large fleet): CPU a beat, (service|PostgreSQL)$/;
const LARGE = /^(\d+) k ÷ 1 k agents/;

/** The cost of a beat by the size of the fleet. */
export function growthChart({ scenarios }: Report): string | undefined {
  const measures = scenarios.filter(({ name }) => name === "growth").flatMap(({ measures }) => measures);
  const series = [
    { label: "service", kind: "own", points: pointsOf(measures, "service") },
    { label: "PostgreSQL", kind: "second", points: pointsOf(measures, "PostgreSQL") },
  ];
  const all = series.flatMap(({ points }) => points);
  if (all.length < 4) return undefined;
  const bottom = TOP + HEIGHT;
  const [from, to] = [MARGIN + LEFT, WIDTH - MARGIN - RIGHT];
  const x = logAxis(
    all.map(({ agents }) => agents),
    from,
    to,
  );
  const y = linearAxis(Math.max(...all.map(({ figure }) => figure.most)), bottom, TOP + 10);
  const parts = y.ticks.flatMap((tick) => [
    line([from, y.at(tick)], [to, y.at(tick)], tick === 0 ? "rule" : "grid"),
    text(from - 10, y.at(tick) + 4, tickText(tick), "muted small", "end"),
  ]);
  for (const agents of new Set(all.map((point) => point.agents)))
    parts.push(text(x.at(agents), bottom + 18, tickText(agents), "muted small", "middle"));
  const labels = series.map(({ points }) => y.at(points.at(-1)?.figure.median ?? 0));
  const [above = 0, below = 0] = labels;
  // Move labels apart if they would overlap.
  const apart = Math.max(0, LABEL_HEIGHT - Math.abs(above - below)) / 2;
  for (const [index, { label, kind, points }] of series.entries()) {
    const path = points.map(({ agents, figure }) => `${x.at(agents).toFixed(1)},${y.at(figure.median).toFixed(1)}`);
    parts.push(
      `<polyline class="s-${kind}" points="${path.join(" ")}" fill="none" stroke-width="2.5" stroke-linejoin="round"/>`,
    );
    for (const { agents, figure } of points) {
      const place = x.at(agents);
      parts.push(
        line(
          [place, y.at(figure.least)],
          [place, y.at(figure.most)],
          `s-${kind}`,
          ` stroke-width="3" stroke-linecap="round" opacity="0.45"`,
        ),
      );
      parts.push(dot(place, y.at(figure.median), 5, `c-${kind}`));
    }
    const last = points.at(-1);
    if (last !== undefined)
      parts.push(
        text(
          to + 16,
          y.at(last.figure.median) + 4.5 + ((index === 0) === above < below ? -apart : apart),
          `${label} ${short(last.figure.median)} µs`,
          `c-${kind} strong`,
        ),
      );
  }
  return card({
    title: "Cost of a beat by the size of the fleet",
    subtitle: "Processor time a beat, µs, by the number of agents (logarithmic), at the same number of beats a second",
    height: bottom + 36,
    parts,
  });
}

function pointsOf(measures: readonly Measure[], what: string) {
  const large = measures.flatMap(({ name }) => LARGE.exec(name)?.[1] ?? [])[0];
  return measures
    .flatMap(({ name, figure }) => {
      const match = NAME.exec(name);
      if (match === null || figure.rounds === 0) return [];
      const [, number = large, unit = "k", whose] = match;
      if (whose !== what || number === undefined) return [];
      return [{ agents: Number(number) * (unit === "M" ? 1_000_000 : 1_000), figure }];
    })
    .sort((one, other) => one.agents - other.agents);
}
