export interface BatchedReadsOptions<Key, Row> {
  /** Reads the existing rows of these keys, in any order. Each key occurs once. */
  readonly read: (keys: readonly Key[]) => Promise<readonly Row[]>;
  readonly keyOf: (row: Row) => Key;
}

/**
 * Statements at the same time. With two, one that hangs on a dead connection does not block all reads. More would only
 * make the batches smaller, and the cost of a statement hardly depends on the number of rows.
 */
const MAX_STATEMENTS = 2;
/** Keys in one statement. A row takes about 10 µs to read, so a larger batch would block the event loop. */
const MAX_KEYS = 500;

interface Reader<Row> {
  readonly resolve: (row: Row | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Batches reads of single rows that arrive together into one statement. A read joins only a statement that is not sent
 * yet, so it sees all earlier commits.
 */
export class BatchedReads<Key, Row> {
  readonly #options: BatchedReadsOptions<Key, Row>;
  #waiting = new Map<Key, Reader<Row>[]>();
  #planned = false;
  #underway = 0;

  constructor(options: BatchedReadsOptions<Key, Row>) {
    this.#options = options;
  }

  /** The row of a key; undefined if it does not exist. Rejects with the error of `read`. */
  get(key: Key): Promise<Row | undefined> {
    return new Promise((resolve, reject) => {
      const readers = this.#waiting.get(key);
      if (readers === undefined) this.#waiting.set(key, [{ resolve, reject }]);
      else readers.push({ resolve, reject });
      this.#plan();
    });
  }

  /**
   * Waits until the pending input is received: the calls of one packet, and of one turn of the event loop, share a
   * statement.
   */
  #plan(): void {
    if (this.#planned || this.#underway >= MAX_STATEMENTS || this.#waiting.size === 0) return;
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
      if (place <= MAX_KEYS) continue;
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
