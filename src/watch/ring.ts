import type { Transition } from "../domain/agent.ts";

/**
 * The newest transitions, in memory: most watchers that resume were disconnected only for a moment, and need no query.
 */
export class Ring {
  readonly #slots: (Transition | undefined)[];
  /** How many transitions were ever pushed; the newest is in slot (pushed - 1) modulo the capacity. */
  #pushed = 0;
  #length = 0;
  #start = 0n;

  /** `capacity` in transitions. */
  constructor(capacity: number) {
    this.#slots = new Array<Transition | undefined>(capacity).fill(undefined);
  }

  /** The ring has everything after this revision. */
  get start(): bigint {
    return this.#start;
  }

  /** Drops everything. The next transition that is pushed comes right after `start`. */
  reset(start: bigint): void {
    this.#slots.fill(undefined);
    this.#pushed = 0;
    this.#length = 0;
    this.#start = start;
  }

  /** Adds the next transition. Drops the oldest one if there is no room. */
  push(transition: Transition): void {
    const slot = this.#pushed % this.#slots.length;
    const oldest = this.#slots[slot];
    if (oldest !== undefined) this.#start = oldest.revision;
    else this.#length += 1;
    this.#slots[slot] = transition;
    this.#pushed += 1;
  }

  /** The first `limit` transitions after a revision; undefined when the ring may have dropped some of them. */
  from(revision: bigint, limit: number): readonly Transition[] | undefined {
    if (revision < this.#start) return undefined;
    const found: Transition[] = [];
    for (let place = this.#firstAfter(revision); place < this.#length && found.length < limit; place += 1) {
      found.push(this.#at(place));
    }
    return found;
  }

  #firstAfter(revision: bigint): number {
    let low = 0;
    let high = this.#length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#at(middle).revision > revision) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** By age: 0 is the oldest. */
  #at(place: number): Transition {
    const transition = this.#slots[(this.#pushed - this.#length + place) % this.#slots.length];
    if (transition === undefined) throw new RangeError(`the ring holds ${this.#length} transitions, not ${place + 1}`);
    return transition;
  }
}
