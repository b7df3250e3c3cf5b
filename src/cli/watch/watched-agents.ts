import type { WatchEvent } from "harborforge-agents-client";
import type { AgentStatus } from "../../../common/contract/enum-names.ts";
import type { Micros } from "../../../common/contract/time.ts";
import type { AgentRecord, ChangeRecord, TransitionRecord } from "../records/records.ts";

/** The number of transitions that a large terminal can show. */
const NEWEST_KEPT = 60;

/** The suspect agents, which a watch does not tell: suspicion is no transition. */
export interface Suspicion {
  /** How many suspect agents have each status. */
  readonly counts: ReadonlyMap<AgentStatus | "unknown", number>;
  /** Since when agents are suspect, by `agentId`; at least those that are shown. */
  readonly since: ReadonlyMap<string, Micros>;
}

const NO_SUSPICION: Suspicion = { counts: new Map(), since: new Map() };

/** The agents and the newest transitions of a watch. */
export class WatchedAgents {
  readonly #agents = new Map<bigint, AgentRecord>();
  #newest: readonly TransitionRecord[] = [];
  #revision = 0n;
  #disconnectedBy: string | undefined;
  #suspicion = NO_SUSPICION;
  #shown: { readonly room: number; readonly agents: readonly AgentRecord[] } | undefined;

  get revision(): bigint {
    return this.#revision;
  }

  /** Why the watch is disconnected; undefined while it is connected. */
  get disconnectedBy(): string | undefined {
    return this.#disconnectedBy;
  }

  /** Newest first. */
  get newest(): readonly TransitionRecord[] {
    return this.#newest;
  }

  get size(): number {
    return this.#agents.size;
  }

  /** Suspect agents count as `suspect` only. */
  get counts(): Readonly<Record<AgentStatus | "suspect", number>> {
    const counts = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 0, suspect: 0 };
    for (const { status } of this.#agents.values()) if (status !== "unknown") counts[status] += 1;
    for (const [status, suspects] of this.#suspicion.counts) {
      if (status === "unknown") continue;
      // The counts may be some seconds older than the watch.
      const most = Math.min(suspects, counts[status]);
      counts[status] -= most;
      counts.suspect += most;
    }
    return counts;
  }

  /** Takes the suspect agents as of now. */
  suspect(suspicion: Suspicion): void {
    this.#suspicion = suspicion;
    this.#shown = undefined;
  }

  apply(event: WatchEvent<AgentRecord, ChangeRecord>): void {
    if (event.kind === "interrupted") {
      this.#disconnectedBy = event.error?.message.replace(/\.$/, "") ?? "the service asked for a new connection";
      return;
    }
    this.#disconnectedBy = undefined;
    this.#revision = event.revision;
    if (event.kind !== "bookmark") this.#shown = undefined;
    if (event.kind === "snapshot") {
      this.#agents.clear();
      for (const agent of event.agents) this.#agents.set(agent.id, agent);
    } else if (event.kind === "changes") {
      for (const { passes, agent } of event.changes) {
        if (passes) this.#agents.set(agent.id, agent);
        else this.#agents.delete(agent.id);
      }
      const transitions = event.changes.map(({ transition }) => transition).reverse();
      this.#newest = [...transitions, ...this.#newest].slice(0, NEWEST_KEPT);
    }
  }

  /** At most `room` agents: all of them by name, or those that changed last. */
  shown(room: number): readonly AgentRecord[] {
    // Cached, because it is called several times a second for many agents.
    if (this.#shown?.room !== room) {
      const { since } = this.#suspicion;
      const agents = this.#sorted(room).map((agent) => {
        const suspectSince = agent.status === "offline" ? undefined : since.get(agent.agentId);
        return suspectSince === undefined ? agent : { ...agent, suspectSince };
      });
      this.#shown = { room, agents };
    }
    return this.#shown.agents;
  }

  #sorted(room: number): readonly AgentRecord[] {
    const all = [...this.#agents.values()];
    if (all.length <= room) return all.sort((one, other) => (one.agentId < other.agentId ? -1 : 1));
    return all.sort((one, other) => Number(other.revision - one.revision)).slice(0, room);
  }
}
