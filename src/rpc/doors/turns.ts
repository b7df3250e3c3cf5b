/** Begins something that waited. False where nobody wants it any more, so that it cost nothing. */
export type Begin = () => boolean;

/** What is begun in one turn of the event loop, at most. */
const PER_TURN = 32;

/**
 * And for how long, in milliseconds, with all that follows at once from what was begun. A call takes the event loop some ten
 * times until it is answered: to be read, begun, sent to the database and heard from it, committed, written. So others wait ten
 * times this, however much one connection brought.
 */
const PER_TURN_MS = 1;

/** What nobody wants any more costs a microsecond or less: so many of them are as long as a turn. */
const UNWANTED_PER_TURN = 4_096;

/** So many that have begun stay in their line. */
const FORGET_AFTER = 64;

/**
 * Lets calls begin by turns, one of each connection after the other. One read from the network brings thousands of them where
 * a connection means ill; begun as they come they would keep all others waiting, for seconds. A call that comes alone begins in
 * the turn in which it was read.
 */
export class Turns {
  readonly #lines = new Map<object, Line>();
  readonly #perTurn: number;
  #scheduled = false;
  #left = 0;
  #endsAt = 0;

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
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#left = this.#perTurn;
    this.#endsAt = performance.now() + PER_TURN_MS;
    this.#step();
  }

  /** Begins one, and what follows from it at once, before it is asked whether there is time for another one. */
  readonly #step = (): void => {
    if (this.#left <= 0 || performance.now() >= this.#endsAt) {
      setImmediate(() => this.#turn());
      return;
    }
    for (let unwanted = 0; unwanted < UNWANTED_PER_TURN; unwanted += 1) {
      const begin = this.#shift();
      if (begin === undefined) {
        this.#scheduled = false;
        return;
      }
      if (!begin()) continue;
      this.#left -= 1;
      // Behind all microtasks and ticks that this call has left: they are most of what it costs.
      queueMicrotask(this.#stepLater);
      return;
    }
    setImmediate(() => this.#turn());
  };

  readonly #stepLater = (): void => process.nextTick(this.#step);

  /** The next one of the connection whose turn it is. Who has more is put last. */
  #shift(): Begin | undefined {
    for (const [connection, line] of this.#lines) {
      const begin = line.begins[line.next];
      line.next += 1;
      const over = line.next >= line.begins.length;
      if (over || this.#lines.size > 1) this.#lines.delete(connection);
      if (!over) {
        this.#lines.set(connection, line);
        // What was begun is let go, without moving all that still waits each time.
        if (line.next >= FORGET_AFTER) {
          line.begins.splice(0, line.next);
          line.next = 0;
        }
      }
      return begin;
    }
    return undefined;
  }
}

interface Line {
  readonly begins: Begin[];
  /** Where the next one is; those before it have begun. */
  next: number;
}
