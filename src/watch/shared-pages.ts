import type { LogPage, TransitionLog } from "../storage/transition-log.ts";

/** Pages that are kept at most: 10 to 20 MB where pages are full. */
const MOST_PAGES = 8;
/** How long a page is shared, in milliseconds: watchers that read together drift apart by less. */
const KEPT_MS = 2_000;

interface KeptPage {
  readonly page: Promise<LogPage>;
  readonly until: number;
}

/**
 * The log, for watchers that are too far behind for the ring. Watchers that fell behind together, or resume together, are at
 * the same place: each page is read, decoded and encoded once for all of them.
 *
 * Only full pages are shared. Their content does not change, and a reader waits until the feed has reached the page's end: if
 * that history is lost, the feed ends the watch. A short page tells where the log ends at this moment, so each watcher reads
 * it for itself.
 */
export class SharedPages {
  readonly #log: Pick<TransitionLog, "read" | "readSnapshotPage">;
  /** By place and size; the oldest first. */
  readonly #kept = new Map<string, KeptPage>();

  constructor(log: Pick<TransitionLog, "read" | "readSnapshotPage">) {
    this.#log = log;
  }

  async read(after: bigint, limit: number): Promise<LogPage> {
    const key = `${after} ${limit}`;
    const known = this.#kept.get(key);
    if (known !== undefined && performance.now() < known.until) {
      const page = await known.page;
      if (isFull(page, limit)) return page;
    }
    const reading: KeptPage = { page: this.#log.read(after, limit), until: performance.now() + KEPT_MS };
    this.#keep(key, reading);
    try {
      const page = await reading.page;
      if (!isFull(page, limit)) this.#forget(key, reading);
      return page;
    } catch (error) {
      this.#forget(key, reading);
      throw error;
    }
  }

  readonly readSnapshotPage: TransitionLog["readSnapshotPage"] = (filter, afterId, limit) =>
    this.#log.readSnapshotPage(filter, afterId, limit);

  #keep(key: string, reading: KeptPage): void {
    this.#kept.delete(key);
    this.#kept.set(key, reading);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MOST_PAGES && oldest !== undefined) this.#kept.delete(oldest);
  }

  #forget(key: string, reading: KeptPage): void {
    if (this.#kept.get(key) === reading) this.#kept.delete(key);
  }
}

function isFull({ transitions }: LogPage, limit: number): boolean {
  return transitions.length >= limit;
}
