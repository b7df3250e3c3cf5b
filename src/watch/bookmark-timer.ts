/** When nothing else was sent until then, a first bookmark tells the client that the stream is open. In milliseconds. */
export const FIRST_MESSAGE_MS = 100;

/** When the next bookmark of a watch is due. */
export class BookmarkTimer {
  readonly #intervalMs: number;
  #dueAt = performance.now() + FIRST_MESSAGE_MS;
  #hasSent = false;

  /** `intervalMs`: the time between two bookmarks. */
  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** By `performance.now()`. */
  get dueAt(): number {
    return this.#dueAt;
  }

  get isDue(): boolean {
    return performance.now() >= this.#dueAt;
  }

  /** Whether any message was sent. */
  get hasSent(): boolean {
    return this.#hasSent;
  }

  /** A first message is due in `ms` milliseconds, whatever it says. Without effect after the first message. */
  scheduleFirst(ms: number): void {
    if (!this.#hasSent) this.#dueAt = performance.now() + ms;
  }

  /** A message was sent, with a bookmark or without. */
  onSent(hasBookmark: boolean): void {
    if (hasBookmark || !this.#hasSent) this.#dueAt = performance.now() + this.#intervalMs;
    this.#hasSent = true;
  }
}
