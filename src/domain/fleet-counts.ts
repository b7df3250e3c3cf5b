import type { AgentStatus, Unknown } from "../../common/contract/enum-names.ts";
import type { Transition } from "./agent.ts";
import type { Fleet, StatusTally } from "./directories.ts";
import type { AgentPredicate } from "./filter.ts";

/** Includes statuses of a newer version. */
type CountedStatus = AgentStatus | Unknown;

/** The counts of the agents that pass a filter, kept by transitions: a transition costs the same in a fleet of any size. */
export class FleetCounts {
  readonly #passes: AgentPredicate;
  readonly #changed = new Set<string>();
  #all = new Tally();
  #claws = new Map<string, Tally>();

  constructor(passes: AgentPredicate) {
    this.#passes = passes;
  }

  get all(): StatusTally {
    return this.#all;
  }

  /** The number of claws whose counts changed and were not taken. */
  get changed(): number {
    return this.#changed.size;
  }

  /** Replaces all counts. Claws count as changed if their counts differ. */
  replace({ claws, ...all }: Pick<Fleet, "claws" | "statuses" | "suspects">): void {
    const before = this.#claws;
    this.#all = new Tally(all);
    this.#claws = new Map([...claws].map(([claw, tally]) => [claw, new Tally(tally)]));
    for (const [claw, tally] of this.#claws) {
      if (!tally.equals(before.get(claw))) this.#changed.add(claw);
    }
    for (const claw of before.keys()) {
      if (!this.#claws.has(claw)) this.#changed.add(claw);
    }
  }

  /** Applies a transition. Returns whether a count changed. */
  apply(transition: Transition): boolean {
    const { agentId, userId, fromStatus, fromClaw, toStatus, toClaw } = transition;
    if (fromStatus === toStatus && fromClaw === toClaw) return false;
    let counted = false;
    const count = (status: CountedStatus | null, clawIdentifier: string | null, by: 1n | -1n): void => {
      if (status === null || clawIdentifier === null) return;
      if (!this.#passes({ agentId, userId, clawIdentifier, status })) return;
      counted = true;
      this.#add(status, clawIdentifier, by);
    };
    count(fromStatus, fromClaw, -1n);
    count(toStatus, toClaw, 1n);
    return counted;
  }

  /** Takes up to `limit` of the claws that changed, with their counts. A claw without agents has no statuses. */
  takeChanged(limit: number): ReadonlyMap<string, StatusTally> {
    const taken = new Map<string, StatusTally>();
    for (const claw of this.#changed) {
      if (taken.size >= limit) break;
      this.#changed.delete(claw);
      taken.set(claw, this.#claws.get(claw) ?? new Tally());
    }
    return taken;
  }

  #add(status: CountedStatus, clawIdentifier: string, by: 1n | -1n): void {
    const claw = this.#claws.get(clawIdentifier) ?? new Tally();
    this.#all.add(status, by);
    claw.add(status, by);
    if (claw.isEmpty) this.#claws.delete(clawIdentifier);
    else this.#claws.set(clawIdentifier, claw);
    this.#changed.add(clawIdentifier);
  }
}

class Tally implements StatusTally {
  readonly statuses: Map<CountedStatus, bigint>;
  readonly suspects: Map<CountedStatus, bigint>;

  constructor({ statuses, suspects }: StatusTally = { statuses: new Map() }) {
    this.statuses = new Map(statuses);
    this.suspects = new Map(suspects);
  }

  get isEmpty(): boolean {
    return this.statuses.size === 0;
  }

  add(status: CountedStatus, by: 1n | -1n): void {
    const count = (this.statuses.get(status) ?? 0n) + by;
    if (count > 0n) this.statuses.set(status, count);
    else this.statuses.delete(status);
    // Suspicion begins and ends without a transition, so this count is older than the other one.
    const suspects = this.suspects.get(status) ?? 0n;
    if (suspects === 0n || suspects <= count) return;
    if (count > 0n) this.suspects.set(status, count);
    else this.suspects.delete(status);
  }

  equals(other: Tally | undefined): boolean {
    return other !== undefined && same(this.statuses, other.statuses) && same(this.suspects, other.suspects);
  }
}

function same(one: ReadonlyMap<CountedStatus, bigint>, other: ReadonlyMap<CountedStatus, bigint>): boolean {
  return one.size === other.size && [...one].every(([status, count]) => other.get(status) === count);
}
