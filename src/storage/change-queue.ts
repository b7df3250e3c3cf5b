import { Queue } from "../scheduling/queue.ts";

/** What waits: a change of one agent. */
export interface Queued {
  readonly change: {
    readonly agentId: string;
    /** The agent's own report, which waits for no more than one change of others. */
    readonly report?: boolean;
  };
}

type Kind = "reports" | "others";

/** The waiting changes of one agent. */
class Line<Item> {
  readonly agentId: string;
  readonly waiting: Readonly<Record<Kind, Item[]>> = { reports: [], others: [] };
  /** How often it stands in the order of the agents: at least once where something of that kind waits. */
  readonly places: Record<Kind, number> = { reports: 0, others: 0 };
  lastTaken: Kind = "others";
  /** The last group that something was taken for. */
  group = 0;

  constructor(agentId: string) {
    this.agentId = agentId;
  }

  get size(): number {
    return this.waiting.reports.length + this.waiting.others.length;
  }

  /** Reports and other changes by turns, while both wait: neither can hold up the other. */
  next(): { readonly item: Item; readonly kind: Kind } | undefined {
    const { reports, others } = this.waiting;
    const kind = others.length > 0 && (reports.length === 0 || this.lastTaken === "reports") ? "others" : "reports";
    const item = this.waiting[kind].shift();
    return item === undefined ? undefined : { item, kind };
  }
}

/**
 * The changes that wait to be committed. A group takes the next change of each agent, one agent after the other: an agent
 * with many waiting changes holds up itself alone. Of one agent, its own report waits for at most one other change. Of all
 * agents, at least half of each group is for the agents' own reports, and half for other changes, while both wait.
 */
export class ChangeQueue<Item extends Queued> {
  readonly #lines = new Map<string, Line<Item>>();
  readonly #order: Readonly<Record<Kind, Queue<Line<Item>>>> = { reports: new Queue(), others: new Queue() };
  readonly #isDropped: (item: Item) => boolean;
  #size = 0;
  #group = 0;

  /** `isDropped`: asked before a change is taken; true: nobody wants it any more, and who waited for it was told. */
  constructor(isDropped: (item: Item) => boolean) {
    this.#isDropped = isDropped;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Whether so many changes of this kind and agent wait. Those that nobody wants any more are dropped before that is said.
   * Reports and other changes are counted apart, so that neither keep the others out.
   */
  isFull(most: number, change: Queued["change"]): boolean {
    const waiting = this.#lines.get(change.agentId)?.waiting[kindOf(change)] ?? [];
    if (waiting.length < most) return false;
    const kept = waiting.filter((item) => !this.#isDropped(item));
    this.#size -= waiting.length - kept.length;
    waiting.splice(0, waiting.length, ...kept);
    return kept.length >= most;
  }

  push(item: Item): void {
    const line = this.#lineOf(item);
    line.waiting[kindOf(item.change)].push(item);
    this.#size += 1;
    this.#enlist(line);
  }

  /** Before all others of their agents, and these agents before all others, in this order. */
  putBack(items: readonly Item[]): void {
    const first: Record<Kind, Line<Item>[]> = { reports: [], others: [] };
    for (const item of items.toReversed()) {
      const kind = kindOf(item.change);
      const line = this.#lineOf(item);
      line.waiting[kind].unshift(item);
      // Its turn is still to come.
      line.lastTaken = kind === "reports" ? "others" : "reports";
      line.places[kind] += 1;
      first[kind].unshift(line);
    }
    this.#size += items.length;
    for (const kind of ["reports", "others"] as const) this.#order[kind].putBack(first[kind]);
  }

  /** The next change of each agent, of so many agents at most. */
  takeGroup(most: number): Item[] {
    this.#group += 1;
    const group: Item[] = [];
    this.#take("reports", most - Math.min(Math.floor(most / 2), this.#order.others.size), group);
    this.#take("others", most, group);
    this.#take("reports", most, group);
    return group;
  }

  #take(kind: Kind, most: number, group: Item[]): void {
    const order = this.#order[kind];
    const nextTime: Line<Item>[] = [];
    while (group.length < most) {
      const line = order.take();
      if (line === undefined) break;
      if (line.group === this.#group) {
        nextTime.push(line);
        continue;
      }
      line.places[kind] -= 1;
      const item = this.#next(line);
      if (item !== undefined) group.push(item);
      this.#enlist(line);
    }
    order.putBack(nextTime);
  }

  /** The next change of an agent that somebody still wants. */
  #next(line: Line<Item>): Item | undefined {
    for (;;) {
      const next = line.next();
      if (next === undefined) return undefined;
      this.#size -= 1;
      if (this.#isDropped(next.item)) continue;
      line.lastTaken = next.kind;
      line.group = this.#group;
      return next.item;
    }
  }

  /** Gives an agent its place behind all others, for each kind that waits; without any it is forgotten. */
  #enlist(line: Line<Item>): void {
    for (const kind of ["reports", "others"] as const) {
      if (line.waiting[kind].length === 0 || line.places[kind] > 0) continue;
      line.places[kind] = 1;
      this.#order[kind].push(line);
    }
    if (line.size === 0 && this.#lines.get(line.agentId) === line) this.#lines.delete(line.agentId);
  }

  #lineOf({ change: { agentId } }: Item): Line<Item> {
    let line = this.#lines.get(agentId);
    if (line === undefined) {
      line = new Line(agentId);
      this.#lines.set(agentId, line);
    }
    return line;
  }
}

function kindOf({ report }: Queued["change"]): Kind {
  return report === true ? "reports" : "others";
}
