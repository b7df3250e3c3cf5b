import { Refusal } from "../../domain/errors.ts";
import { FairQueue } from "../../scheduling/fair-queue.ts";

/**
 * Calls whose answers may have a thousand rows, by name. Reading one takes PostgreSQL and this process ten times as long as
 * a call takes usually.
 */
export const COSTLY_METHODS: ReadonlySet<string> = new Set([
  "BatchGetAgents",
  "GetFleet",
  "ListAgents",
  "ListAgentTransitions",
  "ListTokens",
  "ListUsers",
]);

/** Fewer than there are connections to the database for them, so that other calls find one free. */
const AT_ONCE = 2;
/** Of one connection. Their deadlines pass before more of them have had their turn. */
const MOST_WAITING = 128;
/** A place is not kept for longer by a call that waits for a database that is away, in milliseconds. */
const LONGEST_TURN_MS = 1_000;
/** The longest pause after one, in milliseconds. */
const LONGEST_PAUSE_MS = 20;
const RETRY_MS = 1_000;

interface Waiting {
  /** It waits no more. */
  leave(): void;
  begin(): Promise<void>;
}

/**
 * Lets calls that cost much begin a few at a time: one of each caller after the other, and of a caller's connections. A place
 * that was used rests for as long as the call took, while others wait for theirs: half of the time belongs to calls that cost
 * little.
 */
export class CostlyCalls {
  readonly #queue = new FairQueue<Waiting>(1);
  readonly #waitingOf = new WeakMap<object, number>();
  #free = AT_ONCE;

  /**
   * The outcome of `work`, which is called in its turn; where `signal` is aborted before, never, and nothing comes of it.
   * `connection` is any object that stands for it.
   *
   * @throws Refusal `LIMIT_EXCEEDED` where too many of the connection wait
   */
  run<T>(caller: string, connection: object, signal: AbortSignal, work: () => T | Promise<T>): Promise<T> {
    const waiting = this.#waitingOf.get(connection) ?? 0;
    if (waiting >= MOST_WAITING) throw tooMany();
    // Nobody waits for it, and what it asks for is not kept.
    if (signal.aborted) return new Promise<T>(() => undefined);
    this.#waitingOf.set(connection, waiting + 1);
    return new Promise<T>((resolve, reject) => {
      const leave = (): void => {
        signal.removeEventListener("abort", giveUp);
        this.#waitingOf.set(connection, (this.#waitingOf.get(connection) ?? 1) - 1);
      };
      const giveUp = (): void => {
        leave();
        forget();
      };
      signal.addEventListener("abort", giveUp);
      const forget = this.#queue.push(caller, connection, {
        leave,
        begin: () =>
          new Promise((over) => {
            const late = setTimeout(over, LONGEST_TURN_MS);
            new Promise<T>((begun) => begun(work())).then(resolve, reject).finally(() => {
              clearTimeout(late);
              over();
            });
          }),
      });
      this.#go();
    });
  }

  #go(): void {
    while (this.#free > 0) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      next.item.leave();
      next.charge(1);
      this.#free -= 1;
      const begun = performance.now();
      void next.item.begin().then(() => this.#rest(performance.now() - begun));
    }
  }

  #rest(tookMs: number): void {
    const free = (): void => {
      this.#free += 1;
      this.#go();
    };
    if (this.#queue.size === 0) free();
    else setTimeout(free, Math.min(LONGEST_PAUSE_MS, tookMs));
  }
}

function tooMany(): Refusal {
  return new Refusal("LIMIT_EXCEEDED", `${MOST_WAITING} calls of this connection wait to read many rows: send fewer`, {
    metadata: { limit: "waitingReads", waitingReads: String(MOST_WAITING) },
    retryAfterMs: RETRY_MS,
  });
}
