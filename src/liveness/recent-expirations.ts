import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import type { Count } from "../telemetry/metrics/count.ts";

interface Expiration {
  readonly revision: bigint;
  readonly at: Micros;
}

/** The expirations of the last lease, of all replicas, to count those that were followed at once by the agent's return. */
export class RecentExpirations {
  readonly #leaseMs: () => number;
  readonly #reversed: Count;
  /** By agent, the oldest first. */
  readonly #recent = new Map<bigint, Expiration>();

  /** @param leaseMs the length of a lease now, in milliseconds */
  constructor(leaseMs: () => number, reversed: Count) {
    this.#leaseMs = leaseMs;
    this.#reversed = reversed;
  }

  /** The lease of an agent expired at `at`: its transition has this revision. */
  expired(id: bigint, revision: bigint, at: Micros): void {
    this.#recent.delete(id);
    this.#recent.set(id, { revision, at });
    for (const [old, { at: expiredAt }] of this.#recent) {
      if (at - expiredAt <= this.#leaseMs() * 1_000) break;
      this.#recent.delete(old);
    }
  }

  /** This replica brought an agent back at `at`, which was offline until then. */
  returned({ id, revision }: Pick<Agent, "id" | "revision">, at: Micros): void {
    const last = this.#recent.get(id);
    if (last === undefined || last.revision !== revision) return;
    this.#recent.delete(id);
    if (at - last.at <= this.#leaseMs() * 1_000) this.#reversed.add();
  }
}
