/** The common parts of charts: a card for light and dark pages, text, and axes. */

export const WIDTH = 880;
export const MARGIN = 24;

/** Colours for light and dark schemes. `c-` classes colour fills, `s-` classes colour strokes. */
const STYLE = `
  svg { color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", "Noto Sans", Inter, sans-serif; font-size: 13px; font-variant-numeric: tabular-nums; }
  .card { fill: #ffffff; stroke: #d8dee4; }
  .title { fill: #1f2328; font-size: 17px; font-weight: 600; }
  .ink { fill: #1f2328; } .muted { fill: #59636e; } .small { font-size: 11.5px; }
  .strong { font-weight: 600; }
  .grid { stroke: #e4e8ec; } .rule { stroke: #d8dee4; } .zero { stroke: #8c959f; }
  .c-own { fill: #0969da; } .s-own { stroke: #0969da; }
  .c-peer { fill: #8c959f; } .s-peer { stroke: #8c959f; }
  .c-second { fill: #9a6700; } .s-second { stroke: #9a6700; }
  .c-aim { fill: #1a7f37; } .s-aim { stroke: #1a7f37; }
  .c-must { fill: #0969da; } .s-must { stroke: #0969da; }
  .c-missed { fill: #cf222e; } .s-missed { stroke: #cf222e; }
  .s-goal { stroke: #59636e; }
  .hollow { fill: #ffffff; }
  .good { fill: #1a7f37; opacity: 0.07; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #151b23; stroke: #3d444d; }
    .title, .ink { fill: #f0f6fc; } .muted { fill: #9198a1; }
    .grid { stroke: #262c36; } .rule { stroke: #3d444d; } .zero { stroke: #656c76; }
    .c-own, .c-must { fill: #4493f8; } .s-own, .s-must { stroke: #4493f8; }
    .c-peer { fill: #7d8590; } .s-peer { stroke: #7d8590; }
    .c-second { fill: #d29922; } .s-second { stroke: #d29922; }
    .c-aim { fill: #3fb950; } .s-aim { stroke: #3fb950; }
    .c-missed { fill: #f85149; } .s-missed { stroke: #f85149; }
    .s-goal { stroke: #9198a1; }
    .hollow { fill: #151b23; }
    .good { fill: #3fb950; opacity: 0.1; }
  }`;

export interface Card {
  readonly title: string;
  /** The measured value and its unit. */
  readonly subtitle: string;
  readonly height: number;
  readonly parts: readonly string[];
}

/** The top of the drawing area, below the title. */
export const TOP = 78;

export function card({ title, subtitle, height, parts }: Card): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">`,
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="card" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 34, title, "title"),
    text(MARGIN, 55, subtitle, "muted"),
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

export function text(x: number, y: number, words: string, classes: string, anchor = "start"): string {
  return `<text class="${classes}" x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escaped(words)}</text>`;
}

export function line(
  from: readonly [number, number],
  to: readonly [number, number],
  classes: string,
  more = "",
): string {
  const [[x1, y1], [x2, y2]] = [from, to];
  return `<line class="${classes}" x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}"${more}/>`;
}

export function dot(x: number, y: number, radius: number, classes: string, more = ""): string {
  return `<circle class="${classes}" cx="${round(x)}" cy="${round(y)}" r="${radius}"${more}/>`;
}

export interface Axis {
  readonly ticks: readonly number[];
  at(value: number): number;
}

/** A logarithmic axis with ticks at 1, 2, 5, 10 …, or fewer ticks if they would be too many. */
export function logAxis(values: readonly number[], from: number, to: number): Axis {
  const positive = values.filter((value) => Number.isFinite(value) && value > 0);
  const [least, most] = [Math.min(...positive), Math.max(...positive)];
  const steps: number[] = [];
  for (let power = Math.floor(Math.log10(least)) - 1; power <= Math.ceil(Math.log10(most)); power += 1)
    for (const digit of [1, 2, 5]) steps.push(digit * 10 ** power);
  const first = steps.findLastIndex((step) => step <= least);
  const last = steps.findIndex((step) => step >= most);
  const shown = steps.slice(first, last + 1);
  const [low = least, high = most] = [shown[0], shown.at(-1)];
  const at = (value: number) =>
    from + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low) || 1)) * (to - from);
  const ticks = shown.length <= 9 ? shown : shown.filter((step) => Math.abs(Math.log10(step) % 1) < 1e-9);
  return { ticks, at };
}

/** A linear axis from zero to a round number at or above the largest value. */
export function linearAxis(most: number, from: number, to: number): Axis {
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((digit) => digit * power >= raw) ?? 10) * power;
  const count = Math.ceil(most / step);
  const ticks = Array.from({ length: count + 1 }, (_, n) => n * step);
  return { ticks, at: (value) => from + (value / (count * step)) * (to - from) };
}

export function tickText(value: number): string {
  if (value >= 1_000_000) return `${value / 1_000_000} M`;
  if (value >= 1_000) return `${value / 1_000} k`;
  return String(Number(value.toPrecision(3)));
}

function round(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escaped(words: string): string {
  return words
    .replaceAll("`", "")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
