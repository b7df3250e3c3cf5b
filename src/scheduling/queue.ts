/** So many places that were left are kept before those who wait move up. */
const MOST_LEFT = 1_024;

/**
 * Who waits, first come, first served. However many wait, whoever takes some of them has no work with the others: an array
 * would move them all each time.
 */
export class Queue<Item extends object> {
  #items: (Item | undefined)[] = [];
  #first = 0;

  get size(): number {
    return this.#items.length - this.#first;
  }

  push(item: Item): void {
    this.#items.push(item);
  }

  /** The one who has waited the longest; undefined: nobody waits. */
  take(): Item | undefined {
    const item = this.#items[this.#first];
    if (item === undefined) return undefined;
    this.#items[this.#first] = undefined;
    this.#first += 1;
    // Each moves at most once for each that was taken before it.
    if (this.#first >= MOST_LEFT && this.#first >= this.size) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
    return item;
  }

  /** Before all who wait, in this order. */
  putBack(items: readonly Item[]): void {
    if (items.length > this.#first) {
      this.#items = [...items, ...this.#items.slice(this.#first)];
      this.#first = 0;
      return;
    }
    this.#first -= items.length;
    for (const [place, item] of items.entries()) this.#items[this.#first + place] = item;
  }
}
