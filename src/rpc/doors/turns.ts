/** Begins something that waited. False where nobody wants it any more, so that it cost nothing. */
export type Begin = () => boolean;

/**
 * What is begun in one turn of the event loop. A call costs 0.1 to 0.5 ms until it waits for something: so others, whose
 * requests are read between two turns, wait 10 ms or so for what one connection brought at once, however much that was.
 */
const PER_TURN = 32;

/** And for how long, in milliseconds: what follows after a call has begun takes as long again. */
const PER_TURN_MS = 4;

/**
 * Lets calls begin by turns, one of each connection after the other. One read from the network brings thousands of them where
 * a connection means ill; begun as they come they would keep all others waiting, for seconds. A call that comes alone begins in
 * the turn in which it was read.
 */
export class Turns {
  readonly #lines = new Map<object, Begin[]>();
  readonly #perTurn: number;
  #scheduled = false;

  constructor(perTurn = PER_TURN) {
    this.#perTurn = perTurn;
  }

  /** Calls `begin` in a coming turn, after what `connection` brought before. */
  wait(connection: object, begin: Begin): void {
    const line = this.#lines.get(connection);
    if (line === undefined) this.#lines.set(connection, [begin]);
    else line.push(begin);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    let left = this.#perTurn;
    const endsAt = performance.now() + PER_TURN_MS;
    const isOver = (): boolean => left <= 0 || performance.now() >= endsAt;
    // Who has more to begin is put last, and so comes again in this very loop. Who is alone need not be.
    for (const [connection, line] of this.#lines) {
      const alone = this.#lines.size === 1;
      let taken = 0;
      do {
        if (line[taken]?.() === true) left -= 1;
        taken += 1;
      } while (alone && !isOver() && taken < line.length);
      line.splice(0, taken);
      if (!alone || line.length === 0) this.#lines.delete(connection);
      if (!alone && line.length > 0) this.#lines.set(connection, line);
      if (isOver()) break;
    }
    if (this.#lines.size > 0) this.#schedule();
  }
}
