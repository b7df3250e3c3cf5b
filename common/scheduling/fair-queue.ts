/** The cost that a line may take in one round. A line that took more skips rounds until it is even. */
const DEFAULT_QUANTUM = 65_536;

interface Leaf<Item> {
  debt: number;
  /** The entry is an object because an item may wait twice. */
  readonly items: Set<{ readonly item: Item }>;
}

interface Branch<Item> {
  debt: number;
  readonly lines: Map<unknown, Branch<Item> | Leaf<Item>>;
}

/** The next item, and a function that charges its lines for it. */
export interface Taken<Item> {
  readonly item: Item;
  /** Adds to the cost that its lines have taken. A negative cost gives back. */
  charge(cost: number): void;
}

/**
 * Two levels of queues: networks, and the connections of each network. Lines take turns by the cost of their items,
 * which is charged before or after an item is taken (deficit round robin). A line with many or expensive items delays
 * each other line by one item.
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
   * Appends an item to the line of `connection`, which belongs to `network`.
   *
   * @returns a function that removes the item if it still waits
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

  /**
   * The next item; undefined if the queue is empty. An empty line is forgotten, together with the cost that it took.
   */
  shift(): Taken<Item> | undefined {
    if (this.#size === 0) return undefined;
    const charged: { debt: number }[] = [];
    let branch = this.#root;
    const empty: (() => void)[] = [];
    for (;;) {
      const { lines } = branch;
      const [key, line] = this.#nextOf(lines);
      charged.push(line);
      // Move it to the end, so that the other lines come first.
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
      if (entry === undefined) throw new Error("the queue kept an empty line");
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

  /** The first line whose debt is at most one quantum. Each line before it pays one quantum and goes to the end. */
  #nextOf<Line extends { debt: number }>(lines: Map<unknown, Line>): [unknown, Line] {
    for (const [key, line] of lines) {
      line.debt = lines.size === 1 ? 0 : Math.max(0, line.debt - this.#quantum);
      if (line.debt === 0) return [key, line];
      // The loop reaches it again at the end.
      lines.delete(key);
      lines.set(key, line);
    }
    throw new Error("the queue kept an empty line");
  }
}
