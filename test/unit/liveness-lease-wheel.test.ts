import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LeaseWheel, TICK_MS, type Timed } from "../../src/liveness/lease-wheel.ts";

const START = 1_790_000_000_000_000;
const TICK = TICK_MS * 1_000;
const SECOND = 1_000_000;
const HOUR = 3_600 * SECOND;

interface Timer extends Timed {
  readonly name: string;
}

function timer(name = "a timer"): Timer {
  return { name, dueAt: null, tick: null };
}

type Step =
  | { readonly kind: "schedule"; readonly place: number; readonly inMicros: number }
  /** Relative to its former value: earlier when negative. */
  | { readonly kind: "move"; readonly place: number; readonly byMicros: number }
  | { readonly kind: "cancel"; readonly place: number; readonly say: boolean }
  | { readonly kind: "advance"; readonly micros: number };

const TIMERS = 6;
const place = fc.integer({ min: 0, max: TIMERS - 1 });
const micros = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 6 * TICK }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 60 * SECOND }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 30 * HOUR }) },
  // The edges of ticks, where an off-by-one error would be.
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 8 }).map((ticks) => ticks * TICK) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("schedule"), place, inMicros: micros }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("schedule"), place, inMicros: micros.map((late) => -late) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("move"),
      place,
      byMicros: fc.oneof(
        micros,
        micros.map((earlier) => -earlier),
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancel"), place, say: fc.boolean() }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("advance"), micros }) },
);

/** The wheel, and beside it a plain list of the moments. */
class Both {
  now = START;
  readonly #wheel = new LeaseWheel<Timer>(START);
  readonly #timers = Array.from({ length: TIMERS }, (_, index) => timer(`timer ${index}`));
  /** The expected item, and the moment at which it is too late. */
  readonly #awaited = new Map<Timer, { readonly dueAt: number; readonly latest: number }>();

  do(step: Step): void {
    if (step.kind === "advance") {
      this.now += step.micros;
      this.#advance();
      return;
    }
    const timer = this.#timers[step.place];
    if (timer === undefined) throw new RangeError("no such timer");
    if (step.kind === "schedule") this.#set(timer, this.now + step.inMicros);
    else if (step.kind === "move") this.#set(timer, (timer.dueAt ?? this.now) + step.byMicros);
    else {
      timer.dueAt = null;
      if (step.say) this.#wheel.schedule(timer);
      this.#awaited.delete(timer);
    }
  }

  /** No item may remain when all moments are past. */
  end(): void {
    this.now += 100 * HOUR;
    this.#advance();
    this.now += TICK;
    this.#advance();
    expect(this.#awaited.size).toBe(0);
    expect(this.#wheel.due(this.now + HOUR)).toEqual([]);
  }

  #set(timer: Timer, dueAt: number): void {
    timer.dueAt = dueAt;
    this.#wheel.schedule(timer);
    this.#awaited.set(timer, { dueAt, latest: Math.max(dueAt, this.now) + 2 * TICK });
  }

  #advance(): void {
    const due = this.#wheel.due(this.now);
    expect(new Set(due).size, "each once").toBe(due.length);
    for (const timer of due) {
      const awaited = this.#awaited.get(timer);
      expect(awaited, "not one that was given already, or called off").toBeDefined();
      expect(awaited?.dueAt, "never early").toBeLessThanOrEqual(this.now);
      this.#awaited.delete(timer);
    }
    for (const { latest } of this.#awaited.values()) expect(latest, "never late").toBeGreaterThan(this.now);
  }
}

describe("the wheel", () => {
  it("returns due items once each, never early, and no later than two ticks", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const both = new Both();
        for (const each of steps) both.do(each);
        both.end();
      }),
      { numRuns: 2_000 },
    );
  });

  it("returns an item a tick later when its moment is the wheel's present", () => {
    const wheel = new LeaseWheel<Timer>(START);
    const late = timer();
    late.dueAt = START - HOUR;
    wheel.schedule(late);
    expect(wheel.due(START)).toEqual([]);
    expect(wheel.due(START + TICK)).toEqual([late]);
    expect(late.tick).toBeNull();
  });

  it("accepts an item again that it has returned", () => {
    const wheel = new LeaseWheel<Timer>(START);
    const again = timer();
    for (let round = 1; round <= 3; round++) {
      again.dueAt = START + round * SECOND;
      wheel.schedule(again);
      expect(wheel.due(START + round * SECOND + TICK)).toEqual([again]);
    }
  });

  it("returns very many moments after a long sleep, in the order of their ticks", () => {
    const wheel = new LeaseWheel<Timer>(START);
    const timers = Array.from({ length: 10_000 }, (_, index) => {
      const one = timer(`timer ${index}`);
      one.dueAt = START + ((index * 7_919) % 10_000) * SECOND;
      wheel.schedule(one);
      return one;
    });
    const due = wheel.due(START + 1_000 * HOUR);
    expect(new Set(due)).toEqual(new Set(timers));
    expect(due.map(({ dueAt }) => dueAt)).toEqual(due.map(({ dueAt }) => dueAt ?? 0).sort((a, b) => a - b));
  });

  it("waits while the clock is slightly behind its former value", () => {
    const wheel = new LeaseWheel<Timer>(START);
    const one = timer();
    one.dueAt = START + SECOND;
    wheel.schedule(one);
    expect(wheel.due(START + SECOND - 1)).toEqual([]);
    expect(wheel.due(START + SECOND - 2 * TICK)).toEqual([]);
    expect(wheel.due(START + SECOND + TICK)).toEqual([one]);
  });

  // The first reading of the database's clock, or a new primary, may be behind the former value.
  describe("when the clock is set back by five minutes", () => {
    it("does not delay items that are scheduled afterwards", () => {
      const wheel = new LeaseWheel<Timer>(START);
      const now = START - 300 * SECOND;
      expect(wheel.due(now)).toEqual([]);
      const one = timer();
      one.dueAt = now + SECOND;
      wheel.schedule(one);
      expect(wheel.due(now + SECOND - 1)).toEqual([]);
      expect(wheel.due(now + SECOND + 2 * TICK)).toEqual([one]);
    });

    it("does not delay items that were scheduled before and moved", () => {
      const wheel = new LeaseWheel<Timer>(START);
      const one = timer();
      one.dueAt = START + SECOND;
      wheel.schedule(one);
      const now = START - 300 * SECOND;
      expect(wheel.due(now)).toEqual([]);
      one.dueAt = now + SECOND;
      wheel.schedule(one);
      expect(wheel.due(now + SECOND + 2 * TICK)).toEqual([one]);
      expect(wheel.due(START + HOUR)).toEqual([]);
    });
  });
});
