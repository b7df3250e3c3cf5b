import type { Micros } from "../contract/time.ts";

/** How finely the wheel tells moments apart, in milliseconds: with the commit, this is how late an expiry can be. */
export const TICK_MS = 25;

/** In ticks. A better reading of the database's clock may set it back by less, which is not worth a new beginning. */
const LARGEST_STEP_BACK = 4;

/** Something that is due at a moment, and whose moment may move. */
export interface Timed {
  /** When it is due, by the database's clock; null: not at all. */
  dueAt: Micros | null;
  /** The tick in which the wheel looks at it next; the wheel's own. */
  tick: number | null;
}

/**
 * A timer for very many moments that mostly move on before they come: moving one costs a comparison, since the wheel
 * looks again when the earlier moment comes. Pure: whoever owns it says what time it is.
 */
export class LeaseWheel<Entry extends Timed> {
  readonly #ticks = new Map<number, Entry[]>();
  #swept: number;

  /** `now` in microseconds. */
  constructor(now: Micros) {
    this.#swept = tickOf(now);
  }

  /** Call after `dueAt` was set or moved. */
  schedule(entry: Entry): void {
    if (entry.dueAt === null) return;
    const tick = Math.max(tickOf(entry.dueAt) + 1, this.#swept + 1);
    // Later than planned: the wheel finds out when it gets there.
    if (entry.tick !== null && entry.tick <= tick) return;
    this.#place(entry, tick);
  }

  /** What is due at `now`, each once. An entry that is returned is no longer in the wheel. */
  due(now: Micros): Entry[] {
    const current = tickOf(now);
    if (this.#swept - current > LARGEST_STEP_BACK) this.#rewind(current);
    const due: Entry[] = [];
    // After a long sleep most ticks of the gap hold nothing.
    const ticks =
      current - this.#swept > this.#ticks.size
        ? [...this.#ticks.keys()].filter((tick) => tick <= current).sort((a, b) => a - b)
        : range(this.#swept + 1, current);
    this.#swept = Math.max(this.#swept, current);
    for (const tick of ticks) {
      const entries = this.#ticks.get(tick);
      if (entries === undefined) continue;
      this.#ticks.delete(tick);
      for (const entry of entries) {
        // Planned for an earlier tick meanwhile, and looked at there.
        if (entry.tick !== tick) continue;
        entry.tick = null;
        if (entry.dueAt === null) continue;
        if (entry.dueAt <= now) due.push(entry);
        else this.#place(entry, Math.max(tickOf(entry.dueAt) + 1, current + 1));
      }
    }
    return due;
  }

  /** The clock was set back: what was put off to the wheel's present is due earlier than that. */
  #rewind(current: number): void {
    const entries = new Set(
      [...this.#ticks.entries()].flatMap(([tick, some]) => some.filter((one) => one.tick === tick)),
    );
    this.#ticks.clear();
    this.#swept = current;
    for (const entry of entries) {
      entry.tick = null;
      this.schedule(entry);
    }
  }

  #place(entry: Entry, tick: number): void {
    entry.tick = tick;
    const entries = this.#ticks.get(tick);
    if (entries === undefined) this.#ticks.set(tick, [entry]);
    else entries.push(entry);
  }
}

function tickOf(moment: Micros): number {
  return Math.floor(moment / (TICK_MS * 1_000));
}

function* range(from: number, to: number): Iterable<number> {
  for (let tick = from; tick <= to; tick++) yield tick;
}
