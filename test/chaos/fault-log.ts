import type { Instant } from "./ledger.ts";

/** The part that a fault disabled: a part of the service, or the path between a claw and the service. */
export interface Fault {
  readonly kind: string;
  readonly what: string;
  readonly from: Instant;
  until: Instant | undefined;
  /** Whether the service, or its dependencies, were hindered: then expiries may be late. */
  readonly outage: boolean;
  /** The claws whose connections it hindered, by index. */
  readonly claws: readonly number[];
}

/** A period in which the agents of a claw did not beat, or their beats could not arrive. */
export interface Stop {
  readonly claw: number;
  readonly how: "killed" | "silenced" | "left";
  readonly at: Instant;
  /** When it began again; undefined: it did not. */
  until: Instant | undefined;
}

/** A period in which the test itself was stalled, and so its agents could not beat. */
export interface Lag {
  readonly from: Instant;
  readonly until: Instant;
}

/** All faults of the service and its claws: the only source of the observer. */
export class FaultLog {
  readonly faults: Fault[] = [];
  readonly stops: Stop[] = [];
  readonly lags: Lag[] = [];
  /** Unrequested events, such as a replica that ended by itself. */
  readonly accidents: { readonly at: Instant; readonly what: string }[] = [];
  readonly #onLine: (line: string) => void;
  readonly #startedAt = Date.now();
  #lagTimer: NodeJS.Timeout | undefined;

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
    let expected = Date.now() + LAG_EVERY_MS;
    this.#lagTimer = setInterval(() => {
      const now = Date.now();
      if (now - expected > LAG_COUNTS_MS) this.lags.push({ from: expected - LAG_EVERY_MS, until: now });
      expected = now + LAG_EVERY_MS;
    }, LAG_EVERY_MS);
  }

  /** Seconds since the log began, as lines show them. */
  second(at: Instant): string {
    return ((at - this.#startedAt) / 1_000).toFixed(2);
  }

  begin(fault: Pick<Fault, "kind" | "what"> & Partial<Pick<Fault, "outage" | "claws">>): Fault {
    const begun: Fault = { outage: false, claws: [], ...fault, from: Date.now(), until: undefined };
    this.faults.push(begun);
    this.#onLine(`${this.second(begun.from).padStart(7)}  ${begun.kind}: ${begun.what}`);
    return begun;
  }

  end(fault: Fault): void {
    fault.until = Date.now();
    this.#onLine(`${this.second(fault.until).padStart(7)}  ${fault.kind}: over`);
  }

  stopped(claw: number, how: Stop["how"]): Stop {
    const stop: Stop = { claw, how, at: Date.now(), until: undefined };
    this.stops.push(stop);
    return stop;
  }

  accident(what: string): void {
    this.accidents.push({ at: Date.now(), what });
    this.#onLine(`${this.second(Date.now()).padStart(7)}  ACCIDENT: ${what}`);
  }

  /** The faults that may explain an event at that time. */
  near(at: Instant, withinMs: number): Fault[] {
    return this.faults.filter(({ from, until }) => from <= at && (until ?? at) >= at - withinMs);
  }

  /** The same in words. */
  around(at: Instant, withinMs: number): string {
    const near = this.near(at, withinMs);
    if (near.length === 0) return "no fault was near";
    return near
      .map(({ kind, what, from, until }) => {
        const end = until === undefined ? "…" : this.second(until);
        return `${kind} ${what} (${this.second(from)} to ${end})`;
      })
      .join("; ");
  }

  close(): void {
    clearInterval(this.#lagTimer);
    this.#lagTimer = undefined;
  }
}

const LAG_EVERY_MS = 50;
const LAG_COUNTS_MS = 250;
