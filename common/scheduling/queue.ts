/** Removed entries at the front of the array are kept up to this number before the array is copied. */
const MAX_REMOVED = 1_024;

/** A first-in, first-out queue with constant cost per item. `Array.shift` would move all items each time. */
export class Queue<Item extends object> {
  #items: (Item | undefined)[] = [];
  #first = 0;

  get size(): number {
    return this.#items.length - this.#first;
  }

  push(item: Item): void {
    this.#items.push(item);
  }

  /** Removes and returns the oldest item; undefined if the queue is empty. */
  take(): Item | undefined {
    const item = this.#items[this.#first];
    if (item === undefined) return undefined;
    this.#items[this.#first] = undefined;
    this.#first += 1;
    // Amortized, each item moves at most once for each item taken before it.
    if (this.#first >= MAX_REMOVED && this.#first >= this.size) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
    return item;
  }

  /** Puts items before all others, in the given order. */
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
