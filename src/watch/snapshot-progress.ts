/**
 * How far a snapshot has come that is read page by page, in the order of ids. After each page, all agents up to the page's
 * last id are as of the page's revision, because older changes of earlier pages are sent before the page.
 *
 * So a change of an agent that no page has shown yet may be dropped: a later page is read after the feed has read the
 * change, and shows it. While a page is being read, it is unknown whether the page shows a change, so all are kept.
 */
export class SnapshotProgress {
  #coveredTo = 0n;
  #isReading = false;

  /** The last id that was sent. All agents with smaller ids that pass the filter were sent, too. */
  get coveredTo(): bigint {
    return this.#coveredTo;
  }

  /** Whether the watcher keeps a change of this agent that the feed reads now. */
  keeps(id: bigint): boolean {
    return this.#isReading || this.covers(id);
  }

  covers(id: bigint): boolean {
    return id <= this.#coveredTo;
  }

  /** Call before a page is read. */
  beginPage(): void {
    this.#isReading = true;
  }

  /** The page is sent. */
  endPage(lastId: bigint): void {
    this.#coveredTo = lastId;
    this.#isReading = false;
  }
}
