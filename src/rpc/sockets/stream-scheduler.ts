/** Starts a call. Returns false if the client has cancelled it, so that it cost nothing. */
export type Start = () => boolean;

/** Calls that start in one turn of the event loop, at most. */
const PER_TURN = 32;

/**
 * The longest time of a turn, in milliseconds, with the microtasks of the started calls: the first until a call of each connection
 * has started, the second after that. A call needs about ten turns until its response is written. So a call waits ten times this,
 * however many calls another connection sends.
 */
const LONGEST_TURN_MS = 4;
const USUAL_TURN_MS = 1;

/** A connection with fewer waiting calls starts all of them together: a client that waits for responses has no more. */
const FEW = 4;

/** A cancelled call costs at most a microsecond: this many take as long as a turn. */
const CANCELLED_PER_TURN = 4_096;

/** Started calls are removed from a queue in groups of this size. */
const REMOVE_AFTER = 64;

interface Queue {
  readonly starts: Start[];
  /** The index of the next call; those before it have started. */
  next: number;
}

/**
 * Starts calls in turns, one of each connection after the other (round robin). One read from the network can bring thousands of
 * calls. Started at once, they would delay the calls of all other connections by seconds. A call that arrives alone starts in the
 * turn in which it was read.
 */
export class StreamScheduler {
  readonly #queues = new Map<object, Queue>();
  readonly #perTurn: number;
  #scheduled = false;
  /** Of this turn: the calls that may still start, the connections that wait for their first one, and its start. */
  #callsLeft = 0;
  #connectionsLeft = 0;
  #turnStartedAt = 0;

  constructor(perTurn = PER_TURN) {
    this.#perTurn = perTurn;
  }

  /** Calls `start` in a later turn, after the earlier calls of `connection`. */
  add(connection: object, start: Start): void {
    const queue = this.#queues.get(connection);
    if (queue === undefined) this.#queues.set(connection, { starts: [start], next: 0 });
    else queue.starts.push(start);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#callsLeft = this.#perTurn;
    this.#connectionsLeft = this.#queues.size;
    this.#turnStartedAt = performance.now();
    this.#step();
  };

  /** Starts one call, and lets its microtasks run before it checks the time again. */
  readonly #step = (): void => {
    const longestMs = this.#connectionsLeft > 0 ? LONGEST_TURN_MS : USUAL_TURN_MS;
    if (this.#callsLeft > 0 && performance.now() - this.#turnStartedAt < longestMs && this.#startOne()) {
      this.#callsLeft -= 1;
      // After all microtasks and ticks of this call: they are most of its cost.
      queueMicrotask(this.#stepLater);
      return;
    }
    if (this.#queues.size === 0) this.#scheduled = false;
    else setImmediate(this.#turn);
  };

  readonly #stepLater = (): void => process.nextTick(this.#step);

  /** False if no call waits, or very many of them were cancelled. */
  #startOne(): boolean {
    for (let cancelled = 0; cancelled < CANCELLED_PER_TURN; cancelled += 1) {
      const start = this.#shift();
      if (start === undefined) return false;
      if (start()) return true;
    }
    return false;
  }

  /** The next call of the next connection. A connection with many more calls goes to the end. */
  #shift(): Start | undefined {
    for (const [connection, queue] of this.#queues) {
      const start = queue.starts[queue.next];
      queue.next += 1;
      const more = queue.starts.length - queue.next;
      if (more === 0 || more >= FEW) {
        this.#queues.delete(connection);
        this.#connectionsLeft -= 1;
      }
      if (more >= FEW) this.#queues.set(connection, queue);
      // Frees started calls in groups: each removal moves all waiting ones.
      if (queue.next >= REMOVE_AFTER) {
        queue.starts.splice(0, queue.next);
        queue.next = 0;
      }
      return start;
    }
    return undefined;
  }
}
