import { toRfc3339 } from "../../../common/contract/time.ts";
import type { ExpiryBrake } from "../../domain/directories.ts";

/** Whether the replica should get calls. It should while there is no reason against it. */
export interface Health {
  /** Whether there is no reason against calls. */
  readonly serving: boolean;
  /** The reasons against calls, e.g. `draining, the database is away`; undefined while serving. */
  readonly why: string | undefined;
  /**
   * Adds a reason. Each one is removed by itself: a database that is back does not end a drain.
   *
   * @param detail what people should know about it. The newest one counts
   */
  suspend(reason: string, detail?: string): void;
  /** Removes a reason, if there is one. */
  resume(reason: string): void;
  /** Calls `listener` when `serving` changes. Returns a function that removes the listener. */
  onChange(listener: () => void): () => void;
}

export function createHealth(): Health {
  const reasons = new Map<string, string | undefined>();
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
      if (reasons.size === 0) return undefined;
      return [...reasons]
        .map(([reason, detail]) => (detail === undefined ? reason : `${reason}: ${detail}`))
        .join(", ");
    },
    suspend: (reason, detail) => change(() => reasons.set(reason, detail)),
    resume: (reason) => change(() => reasons.delete(reason)),
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * The notes of the health page for a database that is slow, or fails some statements: most calls still succeed.
 *
 * @param faults what is wrong with it
 */
export function databaseNotes(
  state: "available" | "slow" | "unavailable",
  faults: readonly string[],
): readonly string[] {
  const notes = faults.map((fault) => `the database: ${fault}`);
  return state === "slow" ? ["the database is slow to answer", ...notes] : notes;
}

/** The notes of the health page while the brake on mass expiry is engaged. It is an alarm: the replica still serves calls. */
export function brakeNotes({ engagedAt, heldBack }: ExpiryBrake): readonly string[] {
  if (engagedAt === null) return [];
  return [`expiry brake engaged since ${toRfc3339(engagedAt)}: a mass silence, ${heldBack} agents held back`];
}
