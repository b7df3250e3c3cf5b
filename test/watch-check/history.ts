/**
 * The messages of one watcher, in order. Some are checked at once; the rest waits for the log. A problem is a
 * broken promise, in words.
 */
import { type ChangeKind, type Filter, kindOf, type LogRow, passes, type Seen, statesAt, textOf } from "./log.ts";

/** A tail of the log that was lost when an older state of the database was brought back: revisions from..upTo, and the log with them. */
export interface LostTail {
  /** The newest revision of the older state. */
  readonly after: bigint;
  readonly upTo: bigint;
  readonly log: readonly LogRow[];
}

/** The lost tail of a revision, which was assigned before. */
export function lostTailOf(revision: bigint, lost: readonly LostTail[]): LostTail | undefined {
  return lost.find(({ after, upTo }) => after < revision && revision <= upTo);
}

export interface AgentJson {
  readonly id: string;
  readonly userId: string;
  readonly agentId: string;
  readonly clawIdentifier: string;
  readonly status: string;
  readonly revision: string;
}

export interface MessageJson {
  readonly revision?: string;
  readonly snapshotAgents?: readonly AgentJson[];
  readonly changes?: readonly {
    readonly type: string;
    readonly agent: AgentJson;
    readonly transition: { readonly revision: string; readonly id: string };
    readonly conflated?: number;
  }[];
  readonly bookmark?: { readonly snapshotComplete?: boolean };
}

interface ReceivedChange {
  readonly revision: bigint;
  readonly kind: ChangeKind;
  readonly id: string;
  readonly agent: Seen;
}

/** The changes between two positions: the first was resumed from, or had a complete snapshot. */
interface Stretch {
  readonly from: bigint;
  to: bigint;
  readonly received: ReceivedChange[];
}

function seen({ id, userId, agentId, clawIdentifier, status, revision }: AgentJson): Seen {
  const word = status.replace("AGENT_STATUS_", "").toLowerCase();
  return { id, userId, agentId, claw: clawIdentifier, status: word, revision: BigInt(revision) };
}

export class History {
  readonly name: string;
  readonly filter: Filter;
  readonly conflates: boolean;
  readonly problems: string[] = [];
  /** Where to resume from; undefined: with a snapshot. */
  revision: bigint | undefined;
  counts = { messages: 0, changes: 0, merged: 0, snapshots: 0, resumes: 0, refusals: 0 };
  #set = new Map<string, Seen>();
  /** The set as of `revision`: later changes belong to an incomplete batch. */
  #whole = new Map<string, Seen>();
  #stretch: Stretch | undefined;
  readonly #stretches: Stretch[] = [];
  readonly #states: { readonly revision: bigint; readonly text: string }[] = [];
  readonly #places: { readonly revision: bigint; readonly set: ReadonlyMap<string, Seen> }[] = [];

  constructor(name: string, filter: Filter, conflates: boolean) {
    this.name = name;
    this.filter = filter;
    this.conflates = conflates;
  }

  /** A stream begins, where the last one ended. */
  begin(): void {
    // Changes within an interrupted batch are sent again, in their form by then.
    this.#set = new Map(this.revision === undefined ? [] : this.#whole);
    this.#stretch = undefined;
    if (this.revision === undefined) this.counts.snapshots += 1;
    else {
      this.counts.resumes += 1;
      this.#openStretch(this.revision);
    }
  }

  /** The next stream begins with a snapshot. */
  forget(): void {
    this.revision = undefined;
  }

  /** The next stream resumes from an earlier position: `share` of the way from the first to the last. */
  rewind(share: number): void {
    const place = this.#places[Math.floor(share * this.#places.length)];
    if (place === undefined) return;
    this.revision = place.revision;
    this.#whole = new Map(place.set);
  }

  take(message: MessageJson): void {
    this.counts.messages += 1;
    const { snapshotAgents = [], changes = [], bookmark } = message;
    const revision = BigInt(message.revision ?? 0);
    const inSnapshot = this.revision === undefined;
    if (snapshotAgents.length > 0 && !inSnapshot) this.#say("shows agents after its snapshot");
    for (const agent of snapshotAgents) this.#show(seen(agent));
    for (const { type, agent, transition, conflated = 0 } of changes) {
      const kind = type.replace("AGENT_CHANGE_TYPE_", "") as ChangeKind;
      this.#apply({ revision: BigInt(transition.revision), kind, id: transition.id, agent: seen(agent) }, revision);
      if (conflated > 0 && !this.conflates) this.#say(`merges ${transition.revision} unasked`);
      this.counts.changes += 1;
      this.counts.merged += conflated;
    }
    if (inSnapshot && bookmark?.snapshotComplete !== true) {
      if (revision !== 0n) this.#say(`names revision ${revision} within its snapshot`);
      return;
    }
    if (inSnapshot) this.#openStretch(revision);
    else if (this.revision !== undefined && revision < this.revision) {
      this.#say(`goes back from revision ${this.revision} to ${revision}`);
    }
    const moved = revision !== this.revision;
    this.revision = revision;
    if (this.#stretch !== undefined) this.#stretch.to = revision;
    if (!moved && bookmark === undefined && this.conflates) return;
    this.#whole = new Map(this.#set);
    this.#states.push({ revision, text: textOf(this.#set) });
    this.#places.push({ revision, set: this.#whole });
    if (this.#places.length > 50) this.#places.shift();
  }

  /** The checks against the log: the present one, and those of lost histories. @returns all problems */
  judge(log: readonly LogRow[], lost: readonly LostTail[] = []): readonly string[] {
    const histories = [...lost.map(({ log }) => log), log];
    for (const history of histories)
      this.#judgeBy(history, (revision) => (lostTailOf(revision, lost)?.log ?? log) === history);
    for (const { from, to } of this.#stretches) {
      const tail = lostTailOf(from, lost);
      if (tail !== undefined && lostTailOf(to, lost) !== tail)
        this.#say(`goes on from ${from}, which was lost, to ${to}`);
    }
    return this.problems;
  }

  /** The messages of one history, by its end. */
  #judgeBy(log: readonly LogRow[], isOf: (revision: bigint) => boolean): void {
    const rows = new Map(log.map((row) => [row.revision, row]));
    for (const { from, to, received } of this.#stretches) {
      if (!isOf(to)) continue;
      for (const { revision, id, agent } of received) {
        const row = rows.get(revision);
        const truth = row?.after ?? row?.before;
        if (row?.id !== id) this.#say(`tells of a transition ${revision} of agent ${id} that is not in the log`);
        else if (truth === undefined || textOf(new Map([[id, truth]])) !== textOf(new Map([[id, agent]]))) {
          this.#say(`tells of another agent than the log at ${revision}`);
        }
      }
      if (this.conflates) continue;
      const due = log.flatMap((row) => {
        if (row.revision <= from || row.revision > to) return [];
        const kind = kindOf(this.filter, row);
        return kind === undefined ? [] : [`${row.revision} ${kind} #${row.id}`];
      });
      const came = received.map(({ revision, kind, id }) => `${revision} ${kind} #${id}`);
      const place = due.findIndex((one, index) => one !== came[index]);
      if (place !== -1) this.#say(`after ${from} receives ${came[place] ?? "nothing"} where the log has ${due[place]}`);
      else if (came.length > due.length)
        this.#say(`after ${from} receives ${came[due.length]} beyond the end of the log`);
    }
    const own = this.#states.filter(({ revision }) => isOf(revision));
    const states = statesAt(
      log,
      this.filter,
      own.map(({ revision }) => revision),
    );
    for (const { revision, text } of own) {
      if (states.get(revision) !== text) {
        this.#say(`has at ${revision}:\n${text}\nwhere the log has:\n${states.get(revision)}`);
      }
    }
  }

  #openStretch(from: bigint): void {
    this.#stretch = { from, to: from, received: [] };
    this.#stretches.push(this.#stretch);
  }

  #show(agent: Seen): void {
    if (!passes(this.filter, agent)) this.#say(`shows ${agent.agentId}, which is outside its filter`);
    if (this.#set.has(agent.id)) this.#say(`shows ${agent.agentId} #${agent.id} twice`);
    this.#set.set(agent.id, agent);
  }

  #apply(change: ReceivedChange, upTo: bigint): void {
    const { revision, kind, id, agent } = change;
    if (this.revision !== undefined) {
      if (revision <= this.revision) this.#say(`receives ${revision} although it had reached ${this.revision} before`);
      const last = this.#stretch?.received.at(-1);
      if (!this.conflates && last !== undefined && revision <= last.revision) {
        this.#say(`receives ${revision} after ${last.revision}`);
      }
      if (!this.conflates && revision > upTo) this.#say(`may resume from ${upTo} after it received ${revision}`);
      this.#stretch?.received.push(change);
    }
    if ((kind === "ENTERED") === this.#set.has(id)) {
      this.#say(
        `receives that #${id} ${kind} at ${revision}, which ${this.#set.has(id) ? "it has" : "it does not have"}`,
      );
    }
    if (kind === "LEFT") this.#set.delete(id);
    else this.#set.set(id, agent);
    for (const other of this.#set.values()) {
      if (other.agentId === agent.agentId && other.id !== agent.id) {
        this.#say(`has two agents ${agent.agentId}: #${agent.id} at ${revision}, #${other.id}`);
      }
    }
  }

  #say(problem: string): void {
    // The first few tell it all.
    if (this.problems.length < 5) this.problems.push(`${this.name} ${problem}`);
  }
}
