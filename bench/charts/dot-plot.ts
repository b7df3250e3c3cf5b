import { type Figure, short } from "../harness/figures.ts";
import { card, dot, line, logAxis, MARGIN, TOP, text, tickText, WIDTH } from "./svg.ts";

const ROW = 34;
const LABELS = 270;
const VALUES = 130;

export interface Point {
  readonly figure: Figure;
  readonly kind: "own" | "second" | "peer" | "aim" | "must" | "missed";
  readonly hollow?: boolean;
}

export interface Row {
  readonly label: string;
  /** Drawn in this order; the last one is on top. */
  readonly points: readonly Point[];
  /** The text at the right. */
  readonly value: string;
  readonly must?: number;
  readonly aim?: number;
  readonly strong?: boolean;
}

export interface DotPlot {
  readonly title: string;
  readonly subtitle: string;
  readonly rows: readonly Row[];
  /** A line of text below the axis. */
  readonly legend?: string;
}

/** Medians as dots and spreads as lines on a logarithmic axis. Requirements are dashed marks, aims are dotted ones. */
export function dotPlot({ title, subtitle, rows, legend }: DotPlot): string {
  const [from, to] = [MARGIN + LABELS, WIDTH - MARGIN - VALUES];
  const bottom = TOP + rows.length * ROW;
  const values = rows.flatMap(({ points, must, aim }) => [
    ...points.flatMap(({ figure }) => [figure.least, figure.most]),
    ...(must === undefined ? [] : [must]),
    ...(aim === undefined ? [] : [aim]),
  ]);
  const axis = logAxis(values, from, to);
  const parts = axis.ticks.flatMap((tick) => [
    line([axis.at(tick), TOP], [axis.at(tick), bottom], "grid"),
    text(axis.at(tick), bottom + 18, tickText(tick), "muted small", "middle"),
  ]);
  for (const [index, row] of rows.entries()) {
    const y = TOP + (index + 0.5) * ROW;
    parts.push(text(MARGIN, y + 4.5, row.label, row.strong === true ? "ink strong" : "ink"));
    if (row.must !== undefined) parts.push(goal(axis.at(row.must), y, ` stroke-dasharray="4 3"`));
    if (row.aim !== undefined) parts.push(goal(axis.at(row.aim), y, ` stroke-dasharray="1.5 2.5"`));
    for (const { figure, kind, hollow } of row.points) {
      const { median, least, most } = figure;
      parts.push(
        line(
          [axis.at(least), y],
          [axis.at(most), y],
          `s-${kind}`,
          ` stroke-width="3" stroke-linecap="round" opacity="0.45"`,
        ),
      );
      parts.push(
        hollow === true
          ? dot(axis.at(median), y, 5, `hollow s-${kind}`, ` stroke-width="2"`)
          : dot(axis.at(median), y, 6, `c-${kind}`),
      );
    }
    parts.push(text(WIDTH - MARGIN, y + 4.5, row.value, row.strong === true ? "ink strong" : "ink", "end"));
  }
  parts.push(line([from, bottom], [to, bottom], "rule"));
  if (legend !== undefined) parts.push(text(MARGIN, bottom + 42, legend, "muted small"));
  return card({ title, subtitle, height: bottom + (legend === undefined ? 34 : 58), parts });
}

function goal(x: number, y: number, dashes: string): string {
  return line([x, y - 13], [x, y + 13], "s-goal", ` stroke-width="1.8"${dashes}`);
}

export function valueText(figure: Figure, unit: string): string {
  return `${short(figure.median)} ${unit}`.trim();
}
