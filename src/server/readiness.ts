import type { Health } from "../rpc/services/health.ts";

/** A reason that came back within this time delays its end, in milliseconds. */
const WINDOW_MS = 60_000;
/** How long the second reason within the window stays after its end; each further one twice as long. In milliseconds. */
const FIRST_DELAY_MS = 2_000;
const LONGEST_DELAY_MS = 30_000;

interface Reason {
  /** When it came, of `performance.now()`; those within the window. */
  cameAt: number[];
  isPresent: boolean;
  ending: NodeJS.Timeout | undefined;
}

/**
 * Reasons against calls that may come and go. The first one of a minute ends at once. Those that follow stay longer and
 * longer, so that a balancer does not move all streams each time.
 */
export class Readiness {
  readonly #health: Pick<Health, "suspend" | "resume">;
  readonly #reasons = new Map<string, Reason>();

  constructor(health: Pick<Health, "suspend" | "resume">) {
    this.#health = health;
  }

  /** A reason is there, or has another detail. */
  lose(name: string, detail?: string): void {
    const reason = this.#reasonOf(name);
    clearTimeout(reason.ending);
    reason.ending = undefined;
    if (!reason.isPresent) {
      const now = performance.now();
      reason.isPresent = true;
      reason.cameAt = [...reason.cameAt.filter((at) => now - at < WINDOW_MS), now];
    }
    this.#health.suspend(name, detail);
  }

  /** The reason is gone. */
  regain(name: string): void {
    const reason = this.#reasonOf(name);
    if (!reason.isPresent) return;
    reason.isPresent = false;
    const earlier = reason.cameAt.length - 1;
    if (earlier === 0) {
      this.#health.resume(name);
      return;
    }
    const delayMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (earlier - 1));
    reason.ending = setTimeout(() => this.#health.resume(name), delayMs);
  }

  close(): void {
    for (const { ending } of this.#reasons.values()) clearTimeout(ending);
  }

  #reasonOf(name: string): Reason {
    const known = this.#reasons.get(name);
    if (known !== undefined) return known;
    const reason: Reason = { cameAt: [], isPresent: false, ending: undefined };
    this.#reasons.set(name, reason);
    return reason;
  }
}
