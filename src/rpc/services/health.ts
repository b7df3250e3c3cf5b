import { toRfc3339 } from "../../contract/time.ts";
import type { ExpiryBrake } from "../../domain/directory.ts";

/** Whether the replica should get calls, kept as the reasons why it should not. */
export interface Health {
  /** Nothing stands against calls. */
  readonly serving: boolean;
  /** Why not, in plain words, e.g. `draining, the database is away`; undefined while serving. */
  readonly why: string | undefined;
  /** Notes a reason not to serve. Each reason stands alone: the database that comes back does not end a drain. */
  suspend(reason: string): void;
  /** Takes a reason back. Nothing happens if it was not noted. */
  resume(reason: string): void;
  /** Calls `listener` at every change between serving and not. Returns what ends that. */
  onChange(listener: () => void): () => void;
}

export function createHealth(): Health {
  const reasons = new Set<string>();
  const listeners = new Set<() => void>();

  function change(apply: () => void): void {
    const before = reasons.size === 0;
    apply();
    if (before === (reasons.size === 0)) return;
    for (const listener of [...listeners]) listener();
  }

  return {
    get serving() {
      return reasons.size === 0;
    },
    get why() {
      return reasons.size === 0 ? undefined : [...reasons].join(", ");
    },
    suspend: (reason) => change(() => reasons.add(reason)),
    resume: (reason) => change(() => reasons.delete(reason)),
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** What health says of a database that is there and slow: calls are answered, late. */
export function databaseNotes(state: "available" | "slow" | "unavailable"): readonly string[] {
  return state === "slow" ? ["the database is slow to answer"] : [];
}

/** What health says of the brake on mass expiry while it is engaged. It is an alarm, not a reason to send calls elsewhere. */
export function brakeNotes({ engagedAt, heldBack }: ExpiryBrake): readonly string[] {
  if (engagedAt === null) return [];
  return [`expiry brake engaged since ${toRfc3339(engagedAt)}: a mass silence, ${heldBack} agents held back`];
}
