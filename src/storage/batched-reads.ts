export interface BatchedReadsOptions<Key, Row> {
  /** Reads what there is of these keys, each once, in any order. */
  readonly read: (keys: readonly Key[]) => Promise<readonly Row[]>;
  readonly keyOf: (row: Row) => Key;
}

/**
 * Two: a statement that hangs on a lost connection must not hold up all others. More would only make each smaller, and
 * what a statement costs is mostly the same however many rows it reads.
 */
const MOST_UNDERWAY = 2;
/** A row takes some 10 µs to read: longer, and whoever else is served by this process waits for it. */
const MOST_KEYS = 500;

interface Reader<Row> {
  readonly resolve: (row: Row | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Reads of single rows, of which those that come together share a statement. A read only ever joins a statement that is
 * not sent yet, so it sees all that was committed before it began, as a statement of its own would.
 */
export class BatchedReads<Key, Row> {
  readonly #options: BatchedReadsOptions<Key, Row>;
  #waiting = new Map<Key, Reader<Row>[]>();
  #planned = false;
  #underway = 0;

  constructor(options: BatchedReadsOptions<Key, Row>) {
    this.#options = options;
  }

  /** The row of a key, undefined where there is none. Rejects as `read` does. */
  get(key: Key): Promise<Row | undefined> {
    return new Promise((resolve, reject) => {
      const readers = this.#waiting.get(key);
      if (readers === undefined) this.#waiting.set(key, [{ resolve, reject }]);
      else readers.push({ resolve, reject });
      this.#plan();
    });
  }

  /** After what is there to be received now: the calls of one packet, and of one turn of the event loop, come together. */
  #plan(): void {
    if (this.#planned || this.#underway >= MOST_UNDERWAY || this.#waiting.size === 0) return;
    this.#planned = true;
    setImmediate(() => {
      this.#planned = false;
      void this.#send(this.#take());
      this.#plan();
    });
  }

  #take(): ReadonlyMap<Key, readonly Reader<Row>[]> {
    const taken = this.#waiting;
    this.#waiting = new Map();
    let place = 0;
    for (const [key, readers] of taken) {
      place += 1;
      if (place <= MOST_KEYS) continue;
      taken.delete(key);
      this.#waiting.set(key, readers);
    }
    return taken;
  }

  async #send(batch: ReadonlyMap<Key, readonly Reader<Row>[]>): Promise<void> {
    const { read, keyOf } = this.#options;
    this.#underway += 1;
    try {
      const found = new Map<Key, Row>();
      for (const row of await read([...batch.keys()])) found.set(keyOf(row), row);
      for (const [key, readers] of batch) {
        for (const { resolve } of readers) resolve(found.get(key));
      }
    } catch (error) {
      for (const readers of batch.values()) {
        for (const { reject } of readers) reject(error);
      }
    } finally {
      this.#underway -= 1;
      this.#plan();
    }
  }
}
