/** Of several rounds: the one in the middle, and how far they lie apart. */
export interface Figure {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly rounds: number;
}

/** Rounds without a number are left out. */
export function figure(values: readonly number[]): Figure {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  const median = sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
  return { median, least: sorted[0] ?? Number.NaN, most: sorted.at(-1) ?? Number.NaN, rounds: sorted.length };
}

/** Round by round, so that what disturbed a whole round disturbs both. */
export function ratio(values: readonly number[], others: readonly number[]): Figure {
  return figure(values.map((value, round) => value / (others[round] ?? Number.NaN)));
}

export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en-US");
  if (value === 0) return "0";
  return value.toPrecision(Math.abs(value) >= 100 ? 3 : 2).replace(/\.0+$/, "");
}
