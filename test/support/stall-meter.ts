import { Client } from "pg";
import { afterEach, beforeEach, inject } from "vitest";
import type { Replica } from "./replica.ts";

const EVERY_MS = 20;
/** What a turn takes on a machine that has nothing else to do, generously. */
const USUAL_MS = 30;

/**
 * Measures for how long this process, or its way to the database, was not served: by that much whatever should happen
 * promptly may be late through no fault of the service's. What must never be early has no such allowance.
 */
export class StallMeter implements AsyncDisposable {
  readonly #running: Promise<void>;
  #stopped = false;
  /** Each, in milliseconds. */
  readonly #stalls: number[] = [];

  constructor(replica: Pick<Replica, "query">) {
    this.#running = this.#run(replica);
  }

  /** Altogether, in milliseconds. */
  get stalledMs(): number {
    return this.#stalls.reduce((sum, each) => sum + each, 0);
  }

  /** How often a replica may have been isolated by its own measure, which is an interval at least. */
  isolatedTimes(pace: { readonly intervalMs: number }): number {
    return this.#stalls.filter((ms) => ms > pace.intervalMs / 3).length;
  }

  /** How late the end of a lease may be, in milliseconds: who was isolated gives its agents a lease to be heard again. */
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

/** For how long the test that runs was not served, in milliseconds; for tests of a file that run one after the other. */
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
