/** What a line may take in a round, in the unit of costs. One that took more sits out rounds until it is even. */
const DEFAULT_QUANTUM = 65_536;

interface Leaf<Item> {
  debt: number;
  /** Each in an object of its own: an item may wait twice. */
  readonly items: Set<{ readonly item: Item }>;
}

interface Branch<Item> {
  debt: number;
  readonly lines: Map<unknown, Branch<Item> | Leaf<Item>>;
}

/** What comes next, and whom it is charged to. */
export interface Taken<Item> {
  readonly item: Item;
  /** Adds to what its lines have taken; a negative cost gives back. */
  charge(cost: number): void;
}

/**
 * Items in lines within lines (a network's connections): lines take turns by what their items cost, known before or after
 * they are taken (deficit round robin). A line with ten thousand items, or with expensive ones, delays each other line by one item.
 */
export class FairQueue<Item> {
  readonly #root: Branch<Item> = { debt: 0, lines: new Map() };
  readonly #quantum: number;
  #size = 0;

  constructor(quantum = DEFAULT_QUANTUM) {
    this.#quantum = quantum;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Puts an item at the end of the line of `connection`, which is one of the lines of `network`.
   *
   * @returns takes the item out again, where it still waits
   */
  push(network: unknown, connection: unknown, item: Item): () => void {
    let branch = this.#root.lines.get(network);
    if (branch === undefined || "items" in branch) {
      branch = { debt: 0, lines: new Map() };
      this.#root.lines.set(network, branch);
    }
    const entry = { item };
    let line = branch.lines.get(connection);
    if (line !== undefined && "items" in line) line.items.add(entry);
    else {
      line = { debt: 0, items: new Set([entry]) };
      branch.lines.set(connection, line);
    }
    this.#size += 1;
    const [{ lines }, { items }] = [branch, line];
    return () => {
      if (!items.delete(entry)) return;
      this.#size -= 1;
      if (items.size === 0) lines.delete(connection);
      if (lines.size === 0) this.#root.lines.delete(network);
    };
  }

  /** The next item; undefined when nothing waits. A line that is empty is forgotten, with what it took. */
  shift(): Taken<Item> | undefined {
    if (this.#size === 0) return undefined;
    const charged: { debt: number }[] = [];
    let branch = this.#root;
    const empty: (() => void)[] = [];
    for (;;) {
      const { lines } = branch;
      const [key, line] = this.#nextOf(lines);
      charged.push(line);
      // To the end: the others come first.
      lines.delete(key);
      lines.set(key, line);
      empty.push(() => {
        if (("items" in line ? line.items : line.lines).size === 0) lines.delete(key);
      });
      if (!("items" in line)) {
        branch = line;
        continue;
      }
      const [entry] = line.items;
      if (entry === undefined) throw new Error("a line without items was kept");
      line.items.delete(entry);
      this.#size -= 1;
      for (const drop of empty.toReversed()) drop();
      return {
        item: entry.item,
        charge: (cost) => {
          for (const one of charged) one.debt = Math.max(0, one.debt + cost);
        },
      };
    }
  }

  /** The first line that owes no more than a round's worth; those before it pay that much and go to the end. */
  #nextOf<Line extends { debt: number }>(lines: Map<unknown, Line>): [unknown, Line] {
    for (const [key, line] of lines) {
      line.debt = lines.size === 1 ? 0 : Math.max(0, line.debt - this.#quantum);
      if (line.debt === 0) return [key, line];
      // Put last, it comes again in this very loop.
      lines.delete(key);
      lines.set(key, line);
    }
    throw new Error("a line without items was kept");
  }
}
