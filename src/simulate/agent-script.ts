import type { Report } from "harborforge-agents-client/internal";
import type { AgentStatus, ExhaustReason } from "../contract/words.ts";
import { between, type Random } from "./random.ts";

export interface AgentScriptOptions {
  readonly random: Random;
  /** How many times quicker than life everything goes. */
  readonly speed: number;
  /** How often work ends at the provider's rate limit, from 0 to 1. */
  readonly rateLimitShare: number;
  /** Whether this is the agent whose account is empty once, until somebody tops it up. */
  readonly emptyAccount: boolean;
}

/**
 * What one agent of a simulation does: waits, takes calls, works, and now and then can work no more. It follows what the
 * server says of it, as an agent should: that it was called, that its exhaustion is over. Times are in milliseconds of
 * any clock that only goes forward.
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

  /** The server's view of the agent: what it is at first, or what somebody else made of it. */
  told(status: AgentStatus, reason: ExhaustReason | "unknown" | undefined, now: number): void {
    if (status === this.#status) return;
    // It happened already, in an earlier run.
    if (reason === "billing") this.#willRunDry = false;
    this.#become(status, reason, now);
  }

  /** What the agent says now; undefined while it has nothing to say. */
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
        // Calls of its own: from its user, not from the calendar.
        return this.#random() < 0.5 ? "on_call" : "busy";
      case "on_call":
        return "busy";
      case "busy":
        return this.#afterWork();
      default:
        // The account was topped up: the agent's own word ends its exhaustion.
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
