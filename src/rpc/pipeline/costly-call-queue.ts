import { FairQueue } from "../../../common/scheduling/fair-queue.ts";
import { AgentService } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { Refusal } from "../../domain/errors.ts";

/**
 * The names of methods whose responses may have a thousand rows. To read one takes PostgreSQL and this process ten times
 * as long as a usual call.
 */
export const COSTLY_METHODS: ReadonlySet<string> = new Set(
  [
    AgentService.method.batchGetAgents,
    AgentService.method.getFleet,
    AgentService.method.listAgents,
    AgentService.method.listAgentTransitions,
    AgentService.method.listIncidents,
    TokenService.method.listTokens,
    UserService.method.listUsers,
    WakeService.method.listPauses,
    WakeService.method.listWakes,
  ].map(({ name }) => name),
);

/** Fewer than the connections to the database for these calls, so that other calls find a free one. */
const AT_ONCE = 2;
/** Per connection of a caller. The deadlines of more calls would pass before their turn. */
const MOST_WAITING = 128;
/** A call that waits for an unavailable database keeps its slot for at most this time, in milliseconds. */
const LONGEST_TURN_MS = 1_000;
/** The longest pause of a slot after a call, in milliseconds. */
const LONGEST_PAUSE_MS = 20;
const RETRY_MS = 1_000;

interface Waiting {
  /** Stops waiting. */
  leave(): void;
  begin(): Promise<void>;
}

/**
 * Starts costly calls a few at a time, in a round robin over callers and over the connections of a caller. While other
 * calls wait, a slot pauses after a call for as long as the call took: half of the time is left for cheap calls.
 */
export class CostlyCalls {
  readonly #queue = new FairQueue<Waiting>(1);
  readonly #waitingOf = new WeakMap<object, number>();
  #free = AT_ONCE;

  /**
   * Calls `work` in its turn. If `signal` is aborted before, `work` is never called, and the promise never settles.
   *
   * @param connection any object that identifies the connection
   * @throws Refusal `LIMIT_EXCEEDED` if too many calls of the connection wait
   */
  run<T>(caller: string, connection: object, signal: AbortSignal, work: () => T | Promise<T>): Promise<T> {
    const waiting = this.#waitingOf.get(connection) ?? 0;
    if (waiting >= MOST_WAITING) throw tooMany();
    // The call has ended: its result is not needed, and a promise that never settles holds nothing.
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
