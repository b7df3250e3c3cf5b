import type { FuzzResult } from "./run-fuzz.ts";

/** The result of a run for people. */
export function fuzzReport({ seed, sent, ms, answers, violations, memory }: FuzzResult): string[] {
  const sorted = [...answers].sort(([, a], [, b]) => b - a);
  return [
    `seed ${seed}: ${sent} inputs in ${(ms / 1_000).toFixed(1)} s`,
    `memory: ${memory.early} MB after a fifth, ${memory.most} MB at most, ${memory.end} MB at the end`,
    ...sorted.map(([what, count]) => `  ${String(count).padStart(8)} ${what}`),
    violations.length === 0 ? "held" : `${violations.length} violations`,
    ...violations.map((violation) => `  ${JSON.stringify(violation)}`),
  ];
}

/** The secrets that a log contains, by their index in the list. */
export function secretsIn(log: string, secrets: readonly string[] = []): string[] {
  return secrets.flatMap((secret, index) => (log.includes(secret) ? [`credential ${index} is in the log`] : []));
}

/** Text that must never be in a log: faults of ours, with the beginning of each. */
export function faultsIn(log: string): string[] {
  return log
    .split("\n")
    .filter((line) => /"level":"(error|fatal)"/.test(line) || (line !== "" && !line.startsWith("{")))
    .map((line) => line.slice(0, 600));
}
