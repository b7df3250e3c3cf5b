import type pg from "pg";
import type { Database } from "../../src/storage/database.ts";

/**
 * `before`: the statement has not been sent. `after`: the database has executed it, and the replica does not
 * have the response yet.
 */
export type Moment = "before" | "after";

/** Named queries that wait at a gate until the test releases them. */
export class Hold implements Disposable {
  readonly name: string;
  readonly moment: Moment;
  #most: number;
  #arrived = 0;
  #waiting: (() => void)[] = [];
  #watching: (() => void)[] = [];
  readonly #onReleased: (hold: Hold) => void;

  constructor(name: string, moment: Moment, most: number, onReleased: (hold: Hold) => void) {
    this.name = name;
    this.moment = moment;
    this.#most = most;
    this.#onReleased = onReleased;
  }

  /** Whether one more query must wait here; it must then call `pass`. */
  takes(name: string): boolean {
    if (name !== this.name || this.#most === 0) return false;
    this.#most -= 1;
    return true;
  }

  async pass(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      this.#arrived += 1;
      for (const look of this.#watching.splice(0)) look();
    });
  }

  /** The number of queries that have arrived. */
  get count(): number {
    return this.#arrived;
  }

  /** Resolves when so many queries wait, or have waited; rejects when they do not within five seconds. */
  async arrived(count = 1): Promise<void> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error(`${this.name} did not come to the gate`)), 40_000);
    try {
      while (this.#arrived < count) {
        await Promise.race([new Promise<void>((resolve) => this.#watching.push(resolve)), late]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Releases the waiting queries; from now on none waits here. */
  release(): void {
    this.#most = 0;
    this.#onReleased(this);
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** Is between a replica and its database: forces the order of a race. */
export class Gate {
  readonly #holds: Hold[] = [];
  readonly #lost: string[] = [];

  constructor(database: Pick<Database, "beats" | "commits" | "feed">) {
    for (const pool of [database.beats, database.commits, database.feed]) {
      pool.on("connect", (client) => this.#guard(client));
    }
  }

  /**
   * From now on queries of this name wait, the first `most` of them. Their connections stay taken meanwhile.
   */
  hold(name: string, moment: Moment = "before", most = Number.POSITIVE_INFINITY): Hold {
    const hold = new Hold(name, moment, most, (released) => this.#holds.splice(this.#holds.indexOf(released), 1));
    this.#holds.push(hold);
    return hold;
  }

  /** The next query of this name takes effect, but its connection breaks before the response arrives. */
  loseAnswer(name: string): void {
    this.#lost.push(name);
  }

  #guard(client: pg.ClientBase): void {
    const query: (...args: unknown[]) => unknown = client.query;
    const send = (args: unknown[]): unknown => Reflect.apply(query, client, args);
    const guarded = (...args: unknown[]): unknown => {
      const name = nameOf(args[0]);
      if (name === undefined) return send(args);
      const holds = this.#holds.filter((hold) => hold.takes(name));
      const lost = this.#lost.indexOf(name);
      if (lost >= 0) this.#lost.splice(lost, 1);
      if (holds.length === 0 && lost < 0) return send(args);
      const callback = args.at(-1);
      const called = typeof callback === "function";
      const result = this.#carryOut(() => send(called ? args.slice(0, -1) : args), holds, lost >= 0);
      if (!called) return result;
      return result.then(
        (answer) => callback(null, answer),
        (error) => callback(error),
      );
    };
    Object.defineProperty(client, "query", { value: guarded });
  }

  async #carryOut(send: () => unknown, holds: readonly Hold[], lost: boolean): Promise<unknown> {
    for (const hold of holds) if (hold.moment === "before") await hold.pass();
    const answer = await send();
    for (const hold of holds) if (hold.moment === "after") await hold.pass();
    if (lost) throw Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
    return answer;
  }
}

function nameOf(query: unknown): string | undefined {
  if (typeof query !== "object" || query === null || !("name" in query)) return undefined;
  return typeof query.name === "string" ? query.name : undefined;
}
