/** Begins something that waited. False where nobody wants it any more, so that it cost nothing. */
export type Begin = () => boolean;

/** What is begun in one turn of the event loop, at most. */
const PER_TURN = 32;

/**
 * And for how long, in milliseconds, with all that follows at once from what was begun: until one of each connection has begun,
 * and where that took less. A call takes the event loop some ten times until it is answered: to be read, begun, sent to the
 * database and heard from it, committed, written. So others wait ten times this, however much one connection brought.
 */
const LONGEST_TURN_MS = 4;
const USUAL_TURN_MS = 1;

/** So many of one connection begin together: it has brought no more than a client that waits for answers does. */
const FEW = 4;

/** What nobody wants any more costs a microsecond or less: so many of them are as long as a turn. */
const UNWANTED_PER_TURN = 4_096;

/** So many that have begun stay in their line. */
const FORGET_AFTER = 64;

interface Line {
  readonly begins: Begin[];
  /** Where the next one is; those before it have begun. */
  next: number;
}

/**
 * Lets calls begin by turns, one of each connection after the other. One read from the network brings thousands of them where
 * a connection means ill; begun as they come they would keep all others waiting, for seconds. A call that comes alone begins in
 * the turn in which it was read.
 */
export class StreamScheduler {
  readonly #lines = new Map<object, Line>();
  readonly #perTurn: number;
  #scheduled = false;
  /** Of this turn: what may still begin, the connections that have not had theirs yet, and when it began. */
  #left = 0;
  #toCome = 0;
  #begunAt = 0;

  constructor(perTurn = PER_TURN) {
    this.#perTurn = perTurn;
  }

  /** Calls `begin` in a coming turn, after what `connection` brought before. */
  wait(connection: object, begin: Begin): void {
    const line = this.#lines.get(connection);
    if (line === undefined) this.#lines.set(connection, { begins: [begin], next: 0 });
    else line.begins.push(begin);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#left = this.#perTurn;
    this.#toCome = this.#lines.size;
    this.#begunAt = performance.now();
    this.#step();
  };

  /** Begins one, and has what follows from it done, before it asks whether there is time for another one. */
  readonly #step = (): void => {
    const mostMs = this.#toCome > 0 ? LONGEST_TURN_MS : USUAL_TURN_MS;
    if (this.#left > 0 && performance.now() - this.#begunAt < mostMs && this.#beginOne()) {
      this.#left -= 1;
      // Behind all microtasks and ticks that this call has left: they are most of what it costs.
      queueMicrotask(this.#stepLater);
      return;
    }
    if (this.#lines.size === 0) this.#scheduled = false;
    else setImmediate(this.#turn);
  };

  readonly #stepLater = (): void => process.nextTick(this.#step);

  /** False where nothing that waits is wanted, or much is not. */
  #beginOne(): boolean {
    for (let unwanted = 0; unwanted < UNWANTED_PER_TURN; unwanted += 1) {
      const begin = this.#shift();
      if (begin === undefined) return false;
      if (begin()) return true;
    }
    return false;
  }

  /** The next one of the connection whose turn it is. A connection with many more is put last. */
  #shift(): Begin | undefined {
    for (const [connection, line] of this.#lines) {
      const begin = line.begins[line.next];
      line.next += 1;
      const more = line.begins.length - line.next;
      if (more === 0 || more >= FEW) {
        this.#lines.delete(connection);
        this.#toCome -= 1;
      }
      if (more >= FEW) this.#lines.set(connection, line);
      // What has begun is let go, without moving all that still waits each time.
      if (line.next >= FORGET_AFTER) {
        line.begins.splice(0, line.next);
        line.next = 0;
      }
      return begin;
    }
    return undefined;
  }
}
