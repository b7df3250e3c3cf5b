import type { Micros } from "../../common/contract/time.ts";

/** The resolution of the wheel in milliseconds. An expiry is late by this at most, and by its commit. */
export const TICK_MS = 25;

/** In ticks. A better reading of the database's clock may set it back by less, which needs no rebuilding of the wheel. */
const LARGEST_STEP_BACK = 4;

/** An entry with a due time that may change. */
export interface Timed {
  /** When the entry is due, by the database's clock; null: never. */
  dueAt: Micros | null;
  /** The tick in which the wheel looks at the entry next. Only the wheel sets it. */
  tick: number | null;
}

/**
 * A timer wheel for very many entries, most of which are postponed before they are due. To postpone an entry costs one
 * comparison, because the entry stays in its old tick. At that tick, the wheel moves it to the later time. Pure: its owner passes in the time.
 */
export class LeaseWheel<Entry extends Timed> {
  readonly #ticks = new Map<number, Entry[]>();
  #swept: number;

  /** `now` in microseconds. */
  constructor(now: Micros) {
    this.#swept = tickOf(now);
  }

  /** Call after every change of `dueAt`. */
  schedule(entry: Entry): void {
    if (entry.dueAt === null) return;
    const tick = Math.max(tickOf(entry.dueAt) + 1, this.#swept + 1);
    // The wheel looks at the entry earlier, and then finds the later time.
    if (entry.tick !== null && entry.tick <= tick) return;
    this.#place(entry, tick);
  }

  /** Removes and returns the entries that are due at `now`. */
  due(now: Micros): Entry[] {
    const current = tickOf(now);
    if (this.#swept - current > LARGEST_STEP_BACK) this.#rewind(current);
    const due: Entry[] = [];
    // After a long sleep most ticks in between are empty.
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
        // Scheduled for an earlier tick meanwhile.
        if (entry.tick !== tick) continue;
        entry.tick = null;
        if (entry.dueAt === null) continue;
        if (entry.dueAt <= now) due.push(entry);
        else this.#place(entry, Math.max(tickOf(entry.dueAt) + 1, current + 1));
      }
    }
    return due;
  }

  /** The clock was set back: entries that were scheduled for the wheel's present may be due earlier. */
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
