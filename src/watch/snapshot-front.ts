/**
 * How far a snapshot that is read page by page, in the order of ids, has come. After each page the agents up to its last
 * id are as of that page's revision, all of them, because older changes of earlier pages are told before the page.
 *
 * So a change of an agent that no page has shown yet may be forgotten: a page that is asked for later begins after the
 * feed has read the change, and shows it. While a page is on its way nobody knows whether it does, so all are kept.
 */
export class SnapshotFront {
  #coveredTo = 0n;
  #reading = false;

  /** The last id that was shown; all agents with smaller ids that pass the filter were shown, too. */
  get coveredTo(): bigint {
    return this.#coveredTo;
  }

  /** Whether a change that the feed reads now can be news. */
  keeps(id: bigint): boolean {
    return this.#reading || this.covers(id);
  }

  covers(id: bigint): boolean {
    return id <= this.#coveredTo;
  }

  /** A page is about to be asked for. */
  beginPage(): void {
    this.#reading = true;
  }

  /** The page is told. */
  endPage(lastId: bigint): void {
    this.#coveredTo = lastId;
    this.#reading = false;
  }
}
