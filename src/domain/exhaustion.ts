import type { Micros } from "../contract/time.ts";
import type { ExhaustReason, ReportedExhaustion } from "../contract/words.ts";
import type { AgentCondition, Backoff } from "./agent.ts";

/** What the server waits when nobody says how long: the first step for each reason. */
export const FIRST_BACKOFF_MS: Readonly<Record<ExhaustReason, number>> = {
  rate_limit: 30_000,
  billing: 10 * 60_000,
};
/** No step is longer, whatever the history. */
export const LONGEST_BACKOFF_MS = 24 * 3_600_000;
/** Each step is shortened or lengthened by up to this share, so that what failed together does not retry together. */
export const BACKOFF_SPREAD = 0.1;
/** A history older than this no longer counts. */
export const BACKOFF_FORGOTTEN_AFTER_MS = 24 * 3_600_000;
/** More are not counted: so many doublings of any first step are beyond the longest, and the column is a smallint. */
export const MOST_STEPS = 40;

/** When an exhaustion ends: at an instant that somebody named, or some time after the change is committed. */
export type RecoveryTime = { readonly at: Micros } | { readonly afterMs: number };

/** What a change does to an agent's exhaustion. */
export type ExhaustionChange =
  | { readonly kind: "keep" }
  | { readonly kind: "clear" }
  | {
      readonly kind: "set";
      readonly reason: ExhaustReason;
      readonly recovery: RecoveryTime;
      /** Whether the agent is exhausted already, so that `exhaustedAt` stays. */
      readonly continues: boolean;
      readonly backoffSteps: number;
    };

export const KEEP_EXHAUSTION: ExhaustionChange = { kind: "keep" };
export const CLEAR_EXHAUSTION: ExhaustionChange = { kind: "clear" };

/** The length of the backoff after `steps` earlier ones. `random` is uniform in [0, 1). */
export function backoffMs(reason: ExhaustReason, steps: number, random: number): number {
  const plain = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS[reason] * 2 ** Math.min(steps, MOST_STEPS));
  return Math.min(LONGEST_BACKOFF_MS, Math.round(plain * (1 - BACKOFF_SPREAD + 2 * BACKOFF_SPREAD * random)));
}

/** The steps that still count at `now`. */
export function countedSteps(backoff: Backoff, now: Micros): number {
  if (backoff.lastAt === null) return 0;
  return now - backoff.lastAt > BACKOFF_FORGOTTEN_AFTER_MS * 1_000 ? 0 : backoff.steps;
}

/**
 * What news of an exhaustion does to an agent.
 *
 * The provider's deadline is authoritative. A delay (`retryAfterMs`) counts once, from the news that made the agent
 * exhausted: the same reason said again with a delay, or with nothing, changes nothing, or an agent that repeats
 * itself with every heartbeat would never recover.
 */
export function exhaustionAfter(
  agent: AgentCondition,
  news: ReportedExhaustion,
  now: Micros,
  random: number,
): ExhaustionChange {
  const current = agent.exhaustion;
  // What ended while the agent was offline is only waiting to be cleared; the news starts another exhaustion.
  const continues = current !== null && (agent.status === "exhausted" || current.recoveryAt > now);
  const deadline = news.recoveryAt !== undefined && news.recoveryAt > now ? news.recoveryAt : undefined;
  if (continues && current.reason === news.reason) {
    if (deadline === undefined || deadline === current.recoveryAt) return KEEP_EXHAUSTION;
    const recovery = { at: deadline };
    return { kind: "set", reason: news.reason, recovery, continues, backoffSteps: agent.backoff.steps };
  }
  // While an exhaustion lasts, and from its end on, it counts itself, however long ago it was set.
  const steps = countedSteps({ steps: agent.backoff.steps, lastAt: current?.recoveryAt ?? agent.backoff.lastAt }, now);
  const delay = news.retryAfterMs !== undefined && news.retryAfterMs > 0 ? news.retryAfterMs : undefined;
  if (deadline !== undefined) {
    return { kind: "set", reason: news.reason, recovery: { at: deadline }, continues, backoffSteps: steps };
  }
  if (delay !== undefined) {
    return { kind: "set", reason: news.reason, recovery: { afterMs: delay }, continues, backoffSteps: steps };
  }
  const recovery = { afterMs: backoffMs(news.reason, steps, random) };
  return { kind: "set", reason: news.reason, recovery, continues, backoffSteps: Math.min(MOST_STEPS, steps + 1) };
}
