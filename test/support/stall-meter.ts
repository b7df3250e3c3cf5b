import { Client } from "pg";
import { afterEach, beforeEach, inject } from "vitest";
import type { Replica } from "./replica.ts";

const EVERY_MS = 20;
/** A generous duration of a turn on an idle machine. */
const USUAL_MS = 30;

/**
 * Measures for how long this process, or its path to the database, was stalled. Events that should be prompt
 * may be late by that time through no fault of the service. Events that must never be early have no such
 * allowance.
 */
export class StallMeter implements AsyncDisposable {
  readonly #running: Promise<void>;
  #stopped = false;
  /** Each, in milliseconds. */
  readonly #stalls: number[] = [];

  constructor(replica: Pick<Replica, "query">) {
    this.#running = this.#run(replica);
  }

  /** The sum, in milliseconds. */
  get stalledMs(): number {
    return this.#stalls.reduce((sum, each) => sum + each, 0);
  }

  /** How often a replica may have been isolated by its own measure, which is an interval at least. */
  isolatedTimes(pace: { readonly intervalMs: number }): number {
    return this.#stalls.filter((ms) => ms > pace.intervalMs / 3).length;
  }

  /** The tolerated delay of an expiry, in milliseconds: an isolated replica gives its agents another lease. */
  lateMs(pace: { readonly intervalMs: number; readonly leaseMs: number }): number {
    return this.stalledMs + this.isolatedTimes(pace) * pace.leaseMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(replica: Pick<Replica, "query">): Promise<void> {
    while (!this.#stopped) {
      const began = performance.now();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      await replica.query("SELECT");
      const stalledMs = performance.now() - began - EVERY_MS - USUAL_MS;
      if (stalledMs > 0) this.#stalls.push(stalledMs);
    }
  }
}

/** The stalls during the running test, in milliseconds; for files whose tests run one after the other. */
export function useStallMeter(): { readonly ms: number } {
  let undo = new AsyncDisposableStack();
  let meter: StallMeter | undefined;
  beforeEach(async () => {
    const client = new Client({ connectionString: inject("cluster").adminUrl });
    await client.connect();
    undo.defer(() => client.end());
    meter = undo.use(new StallMeter({ query: async (sql) => (await client.query(sql)).rows }));
  });
  afterEach(async () => {
    await undo.disposeAsync();
    undo = new AsyncDisposableStack();
    meter = undefined;
  });
  return {
    get ms() {
      return meter?.stalledMs ?? 0;
    },
  };
}
