import type { AgentView, TransitionView } from "harborforge-agents-client";
import type { AgentStatus } from "../../common/contract/enum-names.ts";

const STATUS_WORDS: Readonly<Record<AgentStatus | "unknown", string>> = {
  idle: "idle",
  on_call: "on call",
  busy: "busy",
  exhausted: "exhausted",
  offline: "offline",
  unknown: "unknown",
};

export function statusText(status: AgentStatus | "unknown" | undefined, none: string): string {
  return status === undefined ? none : STATUS_WORDS[status];
}

/** `0:42`, `12:05`, `1:02:33`. */
export function clockOf(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  const two = (number: number): string => String(number).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${two(seconds % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** ` (process 4711)` for a claw with a process of its own, otherwise empty. */
export function processText(pid: number | undefined): string {
  return pid === undefined ? "" : ` (process ${pid})`;
}

/** `0.9 s`, `12 s`, `9 min 58 s`, `3 h 20 min`. Negative durations count as 0. */
export function spanOf(ms: number): string {
  if (ms < 950) return `${(Math.ceil(Math.max(0, ms) / 100) / 10).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min${seconds % 60 === 0 ? "" : ` ${seconds % 60} s`}`;
  return `${Math.floor(minutes / 60)} h${minutes % 60 === 0 ? "" : ` ${minutes % 60} min`}`;
}

/** `12:03:14.123` in local time. */
export function timeOf(date: Date): string {
  const part = (number: number, digits: number): string => String(number).padStart(digits, "0");
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map((number) => part(number, 2)).join(":");
  return `${clock}.${part(date.getMilliseconds(), 3)}`;
}

const CAUSE_WORDS: Readonly<Record<TransitionView["cause"], string>> = {
  created: "created",
  report: "its own report",
  service: "set by a service",
  lease_expired: "lease expired",
  goodbye: "goodbye",
  recovery: "recovered by the server",
  moved: "moved",
  deleted: "deleted",
  heartbeat: "heartbeats again",
  wake: "its wake changed",
  stalled: "makes no progress",
  progressed: "makes progress again",
  unknown: "unknown cause",
};

/** The cause of a transition, for people. */
export function reasonOf({ cause, to, exhaustion, occurredAt }: TransitionView): string {
  if (to !== "exhausted" || exhaustion === undefined || exhaustion.recoveryAt === undefined) return CAUSE_WORDS[cause];
  const left = exhaustion.recoveryAt.getTime() - occurredAt.getTime();
  return `${exhaustReasonText(exhaustion.reason)}, for ${spanOf(left)}`;
}

/** The exhausted agents with their remaining time, soonest first. */
export function recoveriesOf(exhausted: readonly AgentView[], nowMs: number): string[] {
  return exhausted
    .flatMap(({ agentId, exhaustion }) =>
      exhaustion?.recoveryAt === undefined ? [] : [{ agentId, ...exhaustion, recoveryAt: exhaustion.recoveryAt }],
    )
    .sort((one, other) => one.recoveryAt.getTime() - other.recoveryAt.getTime())
    .map(({ agentId, reason, recoveryAt }) => {
      const left = spanOf(recoveryAt.getTime() - nowMs);
      return `${agentId.replace(/^.*-claw-/, "")} ${left}${reason === "billing" ? " (billing)" : ""}`;
    });
}

function exhaustReasonText(reason: string): string {
  return reason === "rate_limit" ? "rate limit" : reason;
}

/** `AGENT_EXHAUSTED 4, REVISION_MISMATCH 2`, the most frequent first. */
export function countsText(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .sort(([, one], [, other]) => other - one)
    .map(([reason, count]) => `${reason} ${count}`)
    .join(", ");
}

export function sumOf(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0);
}
