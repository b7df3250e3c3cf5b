import { setTimeout as sleep } from "node:timers/promises";
import type { AgentRow, LoggedTransition, LogReader } from "./transition-log.ts";

const EVERY_MS = 200;

/** The observations of the log. */
export interface Observation {
  /** The whole log as it was at the end, in the order of revisions. */
  readonly transitions: readonly LoggedTransition[];
  readonly agents: readonly AgentRow[];
  /** Violations of the log's own rules. */
  readonly faults: readonly string[];
}

/**
 * Reads the log while it grows, and once more from the start: every transition must stay, and no new one may
 * come before it.
 */
export class Observer {
  readonly #reader: LogReader;
  readonly #from: bigint;
  readonly #seen: LoggedTransition[] = [];
  readonly #done: Promise<void>;
  #stopping = false;

  constructor(reader: LogReader, from: bigint) {
    this.#reader = reader;
    this.#from = from;
    this.#done = this.#follow();
  }

  get transitionsSeen(): number {
    return this.#seen.length;
  }

  async finish(): Promise<Observation> {
    this.#stopping = true;
    await this.#done;
    const { transitions, agents } = await this.#reader.everything(this.#from);
    return { transitions, agents, faults: differences(this.#seen, transitions) };
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#done;
  }

  async #follow(): Promise<void> {
    while (!this.#stopping) {
      try {
        this.#seen.push(...(await this.#reader.after(this.#seen.at(-1)?.revision ?? this.#from)));
      } catch {
        // The database is away; its committed transitions are there when it is back.
      }
      await sleep(EVERY_MS);
    }
  }
}

function differences(seen: readonly LoggedTransition[], final: readonly LoggedTransition[]): string[] {
  const faults: string[] = [];
  const byRevision = new Map(final.map((transition) => [transition.revision, transition]));
  for (const transition of seen) {
    const { revision, agentId, to } = transition;
    const now = byRevision.get(revision);
    if (now === undefined) faults.push(`revision ${revision} (${agentId} to ${to}) was there and is gone`);
    else if (now.agentId !== agentId || now.to !== to || now.at !== transition.at) {
      faults.push(`revision ${revision} was ${agentId} to ${to} and became ${now.agentId} to ${now.to}: used twice`);
    }
  }
  const known = new Set(seen.map(({ revision }) => revision));
  const newest = seen.at(-1)?.revision ?? 0n;
  for (const { revision, agentId, to } of final) {
    if (revision < newest && !known.has(revision)) {
      faults.push(`revision ${revision} (${agentId} to ${to}) came after ${newest} was there: not in commit order`);
    }
  }
  return faults;
}
