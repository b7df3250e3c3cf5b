import { Queue } from "../../common/scheduling/queue.ts";

/** A waiting change of one agent. */
export interface Queued {
  readonly change: {
    readonly agentId: string;
    /** The agent's own report. It waits for at most one other change of its agent. */
    readonly report?: boolean;
  };
}

type Kind = "reports" | "others";

/** The waiting changes of one agent. */
class Line<Item> {
  readonly agentId: string;
  readonly waiting: Readonly<Record<Kind, Item[]>> = { reports: [], others: [] };
  /** How often the line is in the order of agents: at least once if a change of that kind waits. */
  readonly places: Record<Kind, number> = { reports: 0, others: 0 };
  lastTaken: Kind = "others";
  /** The last group that took a change of this agent. */
  group = 0;

  constructor(agentId: string) {
    this.agentId = agentId;
  }

  get size(): number {
    return this.waiting.reports.length + this.waiting.others.length;
  }

  /** Reports and other changes take turns while both wait, so that neither kind blocks the other. */
  next(): { readonly item: Item; readonly kind: Kind } | undefined {
    const { reports, others } = this.waiting;
    const kind = others.length > 0 && (reports.length === 0 || this.lastTaken === "reports") ? "others" : "reports";
    const item = this.waiting[kind].shift();
    return item === undefined ? undefined : { item, kind };
  }
}

/**
 * The changes that wait to be committed. A group takes the next change of each agent, so an agent with many changes
 * delays only itself. A report of an agent waits for at most one other change of this agent. While both kinds wait,
 * half of each group is for reports and half for other changes.
 */
export class ChangeQueue<Item extends Queued> {
  readonly #lines = new Map<string, Line<Item>>();
  readonly #order: Readonly<Record<Kind, Queue<Line<Item>>>> = { reports: new Queue(), others: new Queue() };
  readonly #isDropped: (item: Item) => boolean;
  #size = 0;
  #group = 0;

  /**
   * @param isDropped called before a change is taken; true if the change is no longer wanted and its caller was told
   */
  constructor(isDropped: (item: Item) => boolean) {
    this.#isDropped = isDropped;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Whether `limit` changes of this kind and agent wait. Unwanted changes are dropped before the count. Reports and
   * other changes have separate limits, so that neither kind blocks the other.
   */
  isFull(limit: number, change: Queued["change"]): boolean {
    const waiting = this.#lines.get(change.agentId)?.waiting[kindOf(change)] ?? [];
    if (waiting.length < limit) return false;
    const kept = waiting.filter((item) => !this.#isDropped(item));
    this.#size -= waiting.length - kept.length;
    waiting.splice(0, waiting.length, ...kept);
    return kept.length >= limit;
  }

  push(item: Item): void {
    const line = this.#lineOf(item);
    line.waiting[kindOf(item.change)].push(item);
    this.#size += 1;
    this.#enlist(line);
  }

  /** Puts changes before all others of their agents, and their agents before all others, in the given order. */
  putBack(items: readonly Item[]): void {
    const first: Record<Kind, Line<Item>[]> = { reports: [], others: [] };
    for (const item of items.toReversed()) {
      const kind = kindOf(item.change);
      const line = this.#lineOf(item);
      line.waiting[kind].unshift(item);
      // The next turn is this kind's.
      line.lastTaken = kind === "reports" ? "others" : "reports";
      line.places[kind] += 1;
      first[kind].unshift(line);
    }
    this.#size += items.length;
    for (const kind of ["reports", "others"] as const) this.#order[kind].putBack(first[kind]);
  }

  /** Takes the next change of each agent, of at most `limit` agents. */
  takeGroup(limit: number): Item[] {
    this.#group += 1;
    const group: Item[] = [];
    this.#take("reports", limit - Math.min(Math.floor(limit / 2), this.#order.others.size), group);
    this.#take("others", limit, group);
    this.#take("reports", limit, group);
    return group;
  }

  #take(kind: Kind, limit: number, group: Item[]): void {
    const order = this.#order[kind];
    const nextTime: Line<Item>[] = [];
    while (group.length < limit) {
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

  /** The next wanted change of an agent. */
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

  /** Puts an agent behind all others for each kind that waits. Removes an agent without waiting changes. */
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
