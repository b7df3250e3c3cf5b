import type { LogPage, TransitionLog } from "../storage/transition-log.ts";

/** Pages that are kept at most: some ten to twenty megabytes of them, where transitions are many. */
const MOST_PAGES = 8;
/** For how long a page is handed out again, in milliseconds: as long as watchers that read together drift apart. */
const KEPT_MS = 2_000;

interface KeptPage {
  readonly page: Promise<LogPage>;
  readonly until: number;
}

/**
 * The log as watchers read it that are too far behind for the ring. Those that fell behind together, or come back
 * together, are at the same place: they read it, and have it decoded and encoded, once.
 *
 * Only full pages are shared. What they hold will not change, and their reader waits until the feed has come as far, so
 * if it was of a history that is lost the feed ends the watch. A short page, or none, says where the log ends at this moment:
 * that everybody asks for themselves.
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
