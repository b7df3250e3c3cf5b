import type { Report } from "harborforge-agents-client/internal";
import type { AgentStatus, ExhaustReason } from "../../common/contract/enum-names.ts";
import { between, type Random } from "./seeded-random.ts";

export interface AgentScriptOptions {
  readonly random: Random;
  /** The speed: 1 is real time. */
  readonly speed: number;
  /** The share of work that ends at the provider's rate limit, 0 to 1. */
  readonly rateLimitShare: number;
  /** Whether the agent's account runs empty once. */
  readonly emptyAccount: boolean;
}

/**
 * The actions of one simulated agent: it waits, takes calls, works, and is sometimes exhausted. It follows the server's
 * view: that a service claimed it, that its exhaustion ended. Times are milliseconds of any monotonic clock.
 */
export class AgentScript {
  readonly #random: Random;
  readonly #speed: number;
  readonly #rateLimitShare: number;
  #willRunDry: boolean;
  #status: AgentStatus | undefined;
  #nextAt = Number.POSITIVE_INFINITY;

  constructor({ random, speed, rateLimitShare, emptyAccount }: AgentScriptOptions) {
    this.#random = random;
    this.#speed = speed;
    this.#rateLimitShare = rateLimitShare;
    this.#willRunDry = emptyAccount;
  }

  /** Takes the server's view of the agent: its first status, or a change by others. */
  observe(status: AgentStatus, reason: ExhaustReason | "unknown" | undefined, now: number): void {
    if (status === this.#status) return;
    // The account ran empty in an earlier run already.
    if (reason === "billing") this.#willRunDry = false;
    this.#become(status, reason, now);
  }

  /** The agent's next report; undefined: none is due. */
  tick(now: number): Report | undefined {
    if (now < this.#nextAt) return undefined;
    const report = this.#next();
    const reason = typeof report === "object" ? report.exhausted.reason : undefined;
    this.#become(typeof report === "string" ? report : "exhausted", reason, now);
    return report;
  }

  #next(): Report {
    switch (this.#status) {
      case "idle":
        // Calls from its user, not from the calendar.
        return this.#random() < 0.5 ? "on_call" : "busy";
      case "on_call":
        return "busy";
      case "busy":
        return this.#afterWork();
      default:
        // The account has money again: the agent's report ends its exhaustion.
        return "idle";
    }
  }

  #afterWork(): Report {
    if (this.#willRunDry) {
      this.#willRunDry = false;
      return { exhausted: { reason: "billing" } };
    }
    if (this.#random() >= this.#rateLimitShare) return "idle";
    const retryAfterMs = Math.round(between(this.#random, 3_000, 9_000) / this.#speed);
    return { exhausted: { reason: "rate_limit", retryAfterMs } };
  }

  #become(status: AgentStatus, reason: ExhaustReason | "unknown" | undefined, now: number): void {
    this.#status = status;
    this.#nextAt = now + this.#lengthOf(status, reason) / this.#speed;
  }

  #lengthOf(status: AgentStatus, reason: ExhaustReason | "unknown" | undefined): number {
    switch (status) {
      case "idle":
        return this.#willRunDry ? 1_000 : between(this.#random, 5_000, 20_000);
      case "on_call":
        return between(this.#random, 1_000, 3_000);
      case "busy":
        return this.#willRunDry ? 2_000 : between(this.#random, 3_000, 8_000);
      case "exhausted":
        return reason === "billing" ? 40_000 : Number.POSITIVE_INFINITY;
      case "offline":
        return Number.POSITIVE_INFINITY;
    }
  }
}
