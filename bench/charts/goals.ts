import { short } from "../harness/figures.ts";
import type { Report } from "../harness/report.ts";
import { type Measure, verdict } from "../harness/scenario.ts";
import { card, dot, line, logAxis, MARGIN, TOP, text, WIDTH } from "./svg.ts";

const ROW = 26;
const HEADING = 30;
const LABELS = 350;
const VALUES = 190;

/** All measures with a requirement, by their ratio to it. */
export function goalsChart({ scenarios }: Report): string | undefined {
  const groups = scenarios
    .map(({ title, measures }) => ({ title, measures: measures.filter(judged) }))
    .filter(({ measures }) => measures.length > 0);
  const all = groups.flatMap(({ measures }) => measures);
  if (all.length < 2) return undefined;
  const [from, to] = [MARGIN + LABELS, WIDTH - MARGIN - VALUES];
  const bottom = TOP + groups.length * HEADING + all.length * ROW + 6;
  const axis = logAxis(
    [...all.flatMap((one) => [one.figure.median, one.aim ?? Number.NaN].map((value) => better(one, value))), 0.5, 2],
    from,
    to,
  );
  const zero = axis.at(1);
  const parts = [
    `<rect class="good" x="${zero.toFixed(1)}" y="${TOP}" width="${(to - zero).toFixed(1)}" height="${bottom - TOP}"/>`,
  ];
  for (const tick of axis.ticks) {
    const x = axis.at(tick);
    parts.push(line([x, TOP], [x, bottom], tick === 1 ? "zero" : "grid"));
    parts.push(text(x, bottom + 18, tick === 1 ? "must" : `${tick}×`, "muted small", "middle"));
  }
  let y = TOP;
  for (const { title, measures } of groups) {
    parts.push(text(MARGIN, y + HEADING - 9, title, "muted small strong"));
    y += HEADING;
    for (const measure of measures) {
      parts.push(...rowOf(measure, y + ROW / 2, axis.at));
      y += ROW;
    }
  }
  parts.push(
    text(
      MARGIN,
      bottom + 42,
      "Dots: medians, green where the aim is reached, blue where only the must is, red where neither is. Dotted marks: the aims.",
      "muted small",
    ),
  );
  return card({
    title: "Results beside their goals",
    subtitle: "Factor by which a result is better than its goal, logarithmic; right of the line the goal is reached",
    height: bottom + 58,
    parts,
  });
}

function rowOf(measure: Measure, y: number, at: (value: number) => number): string[] {
  const { name, unit, figure, must, aim, more } = measure;
  const reached = verdict(measure);
  const kind = reached === "–" ? "must" : reached;
  const x = at(better(measure, figure.median));
  const sign = more === true ? "≥" : "≤";
  const parts = [text(MARGIN + 12, y + 4.5, name, "ink")];
  if (aim !== undefined) {
    const place = at(better(measure, aim));
    parts.push(line([place, y - 9], [place, y + 9], "s-goal", ` stroke-width="1.8" stroke-dasharray="1.5 2.5"`));
  }
  parts.push(line([at(1), y], [x, y], `s-${kind}`, ` stroke-width="3" opacity="0.35"`));
  parts.push(dot(x, y, 5.5, `c-${kind}`));
  const right = WIDTH - MARGIN;
  parts.push(text(right - 76, y + 4.5, `${short(figure.median)} ${unit}`.trim(), "ink strong", "end"));
  parts.push(text(right, y + 4.5, must === undefined ? "" : `${sign} ${short(must)}`, "muted", "end"));
  return parts;
}

function judged({ must, figure }: Measure): boolean {
  return must !== undefined && figure.rounds > 0;
}

function better({ must = Number.NaN, more }: Measure, value: number): number {
  return more === true ? value / must : must / value;
}
