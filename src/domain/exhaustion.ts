import type { ExhaustReason, ReportedExhaustion } from "../../common/contract/enum-names.ts";
import type { Micros } from "../../common/contract/time.ts";
import type { AgentCondition, ExhaustionBackoff } from "./agent.ts";

/** The first step of the server's backoff for each reason, when the provider names no time. */
export const FIRST_BACKOFF_MS: Readonly<Record<ExhaustReason, number>> = {
  rate_limit: 30_000,
  billing: 10 * 60_000,
};
/** The longest step. */
export const LONGEST_BACKOFF_MS = 24 * 3_600_000;
/** Each step is varied by up to this share in both directions. So agents that fail together do not retry together. */
export const BACKOFF_SPREAD = 0.1;
/** After this time without an exhaustion the backoff starts again. */
export const BACKOFF_FORGOTTEN_AFTER_MS = 24 * 3_600_000;
/** The largest count: 40 doublings exceed the longest step, and the column is a smallint. */
export const MAX_STEPS = 40;

/** When an exhaustion ends: at a given instant, or some time after the commit. */
export type RecoveryTime = { readonly at: Micros } | { readonly afterMs: number };

/** What a change does to an agent's exhaustion. */
export type ExhaustionChange =
  | { readonly kind: "keep" }
  | { readonly kind: "clear" }
  | {
      readonly kind: "set";
      readonly reason: ExhaustReason;
      readonly recovery: RecoveryTime;
      /** Whether the agent is exhausted already: then `exhaustedAt` stays. */
      readonly continues: boolean;
      readonly backoffSteps: number;
    };

export const KEEP_EXHAUSTION: ExhaustionChange = { kind: "keep" };
export const CLEAR_EXHAUSTION: ExhaustionChange = { kind: "clear" };

/**
 * The length of the next backoff step in milliseconds.
 *
 * @param steps the number of earlier steps
 * @param random uniform in [0, 1)
 */
export function backoffMs(reason: ExhaustReason, steps: number, random: number): number {
  const plain = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS[reason] * 2 ** Math.min(steps, MAX_STEPS));
  return Math.min(LONGEST_BACKOFF_MS, Math.round(plain * (1 - BACKOFF_SPREAD + 2 * BACKOFF_SPREAD * random)));
}

/** The steps that still count at `now`. */
export function countedSteps(backoff: ExhaustionBackoff, now: Micros): number {
  if (backoff.lastAt === null) return 0;
  return now - backoff.lastAt > BACKOFF_FORGOTTEN_AFTER_MS * 1_000 ? 0 : backoff.steps;
}

/**
 * What a reported exhaustion changes of an agent.
 *
 * The provider's deadline is authoritative. A delay (`retryAfterMs`) counts once, from the report that made the agent
 * exhausted. The same reason again, with a delay or without one, changes nothing. Otherwise an agent that repeats its
 * report in each heartbeat would never recover.
 *
 * @param now the database's clock
 * @param random uniform in [0, 1)
 */
export function exhaustionAfter(
  agent: AgentCondition,
  report: ReportedExhaustion,
  now: Micros,
  random: number,
): ExhaustionChange {
  const current = agent.exhaustion;
  // An exhaustion that ended while the agent was offline only waits to be cleared: the report begins another one.
  const continues = current !== null && (agent.status === "exhausted" || current.recoveryAt > now);
  const deadline = report.recoveryAt !== undefined && report.recoveryAt > now ? report.recoveryAt : undefined;
  if (continues && current.reason === report.reason) {
    if (deadline === undefined || deadline === current.recoveryAt) return KEEP_EXHAUSTION;
    const recovery = { at: deadline };
    return { kind: "set", reason: report.reason, recovery, continues, backoffSteps: agent.backoff.steps };
  }
  // A current exhaustion counts as recent, however long ago it began.
  const steps = countedSteps({ steps: agent.backoff.steps, lastAt: current?.recoveryAt ?? agent.backoff.lastAt }, now);
  const delay = report.retryAfterMs !== undefined && report.retryAfterMs > 0 ? report.retryAfterMs : undefined;
  if (deadline !== undefined) {
    return { kind: "set", reason: report.reason, recovery: { at: deadline }, continues, backoffSteps: steps };
  }
  if (delay !== undefined) {
    return { kind: "set", reason: report.reason, recovery: { afterMs: delay }, continues, backoffSteps: steps };
  }
  const recovery = { afterMs: backoffMs(report.reason, steps, random) };
  return { kind: "set", reason: report.reason, recovery, continues, backoffSteps: Math.min(MAX_STEPS, steps + 1) };
}
