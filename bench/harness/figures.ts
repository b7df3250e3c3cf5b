/** The median of several rounds, and their spread. */
export interface Figure {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly rounds: number;
}

/** Rounds without a number are ignored. */
export function figure(values: readonly number[]): Figure {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  const median = sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
  return { median, least: sorted[0] ?? Number.NaN, most: sorted.at(-1) ?? Number.NaN, rounds: sorted.length };
}

/** The ratio of each round, so that a disturbance of a round affects both values. */
export function ratio(values: readonly number[], others: readonly number[]): Figure {
  return figure(values.map((value, round) => value / (others[round] ?? Number.NaN)));
}

/**
 * Two significant digits, or a whole number from 100. Never an exponent, also if rounding adds a digit (99.7 is "100").
 */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 99.5) return Math.round(value).toLocaleString("en-US");
  if (value === 0) return "0";
  return value.toPrecision(2).replace(/\.0+$/, "");
}
