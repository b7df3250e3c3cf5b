import { INVARIANTS } from "./checks.ts";
import type { ChaosResult } from "./run-chaos.ts";

/** The results of a run, a line each: its size, its lateness, and each invariant with its first violations. */
export function report(result: ChaosResult, show: number): string[] {
  const { violations, sentences, transitions, reports, faults, refusals, excused, near } = result;
  const lines = [
    `${transitions} transitions, ${reports} acknowledged reports; faults: ${words(faults)}`,
    `refused beats: ${words(refusals)}`,
    ...latenessLines(result.lateness),
  ];
  if (excused.length > 0) {
    lines.push(`excused, as their own way and the service were hindered at once, or the test: ${excused.length}`);
  }
  if (violations.length > 0) lines.push(`violations by what was near: ${words(near)}`);
  for (const invariant of INVARIANTS) {
    const broken = sentences.filter((_, index) => violations[index]?.invariant === invariant);
    lines.push(broken.length === 0 ? `ok     ${invariant}` : `FAILED ${invariant} (${broken.length})`);
    for (const sentence of broken.slice(0, show)) lines.push(`         ${sentence}`);
  }
  if (result.trace.length > 0)
    lines.push("the agent of the first violation:", ...result.trace.map((line) => `  ${line}`));
  return lines;
}

function latenessLines(lateness: readonly number[]): string[] {
  if (lateness.length === 0) return [];
  const sorted = [...lateness].sort((one, other) => one - other);
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
  const times = `p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)}`;
  return [`${sorted.length} agents fell silent and were found; ms after the end of the lease: ${times}`];
}

function words(counts: ReadonlyMap<string, number>): string {
  return counts.size === 0 ? "none" : [...counts].map(([word, times]) => `${word} ${times}`).join(", ");
}
