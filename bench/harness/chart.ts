import { short } from "./figures.ts";
import type { ScenarioReport } from "./report.ts";
import { type Measure, verdict } from "./scenario.ts";

const WIDTH = 760;
const ROW = 44;
const LABEL = 330;
const BAR = 300;
const COLOURS = { aim: "#2e7d5b", must: "#4a7fb5", missed: "#c2573a", "–": "#8a8f98" };

/** Bars, one a measure: how far it is from what it must reach, which is the dashed line. */
export function chartOf({ title, measures }: ScenarioReport): string {
  const top = 52;
  const height = top + measures.length * ROW + 16;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="${escaped(title)}">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="16" y="28" font-size="16" font-weight="600" fill="#1d2430">${escaped(title)}</text>`,
    ...measures.map((measure, index) => barOf(measure, top + index * ROW)),
    "</svg>",
    "",
  ].join("\n");
}

function barOf(measure: Measure, y: number): string {
  const { name, unit, figure, must } = measure;
  const whole = Math.max(figure.median, figure.most, must ?? 0) || 1;
  const scale = (value: number) => Math.max(2, (value / whole) * BAR);
  const parts = [
    `<text x="16" y="${y + 20}" fill="#1d2430">${escaped(name)}</text>`,
    `<rect x="${LABEL}" y="${y + 6}" width="${scale(figure.median).toFixed(1)}" height="20" rx="3" fill="${COLOURS[verdict(measure)]}"/>`,
    `<line x1="${(LABEL + scale(figure.least)).toFixed(1)}" x2="${(LABEL + scale(figure.most)).toFixed(1)}" y1="${y + 16}" y2="${y + 16}" stroke="#1d2430" stroke-width="1.5"/>`,
    `<text x="${LABEL + BAR + 12}" y="${y + 20}" fill="#1d2430">${escaped(`${short(figure.median)} ${unit}`)}</text>`,
  ];
  if (must !== undefined) {
    const x = (LABEL + scale(must)).toFixed(1);
    parts.push(`<line x1="${x}" x2="${x}" y1="${y + 1}" y2="${y + 31}" stroke="#1d2430" stroke-dasharray="3 2"/>`);
  }
  return parts.join("\n");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
