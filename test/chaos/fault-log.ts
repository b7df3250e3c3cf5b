import type { Instant } from "./ledger.ts";

/** What a fault took away: something of the service, or of the way between a claw and the service. */
export interface Fault {
  readonly kind: string;
  readonly what: string;
  readonly from: Instant;
  until: Instant | undefined;
  /** Whether the service, or what it stands on, was hindered: then agents that stopped may be found later. */
  readonly outage: boolean;
  /** The claws whose connections it hindered, by index. */
  readonly claws: readonly number[];
}

/** A time in which the agents of a claw did not beat, or were not to be heard. */
export interface Stop {
  readonly claw: number;
  readonly how: "killed" | "silenced" | "left";
  readonly at: Instant;
  /** When it began again; undefined: it did not. */
  until: Instant | undefined;
}

/** A time in which the test itself did not run, and so could not let anybody beat. */
export interface Lag {
  readonly from: Instant;
  readonly until: Instant;
}

/** All that was done to the service and its claws: what the observer knows, and the only thing it goes by. */
export class FaultLog {
  readonly faults: Fault[] = [];
  readonly stops: Stop[] = [];
  readonly lags: Lag[] = [];
  /** What nobody had asked for, such as a replica that ended by itself. */
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

  /** The faults that may have to do with what happened then. */
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
