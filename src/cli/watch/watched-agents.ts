import type { WatchEvent } from "harborforge-agents-client";
import type { AgentStatus } from "../../contract/words.ts";
import type { AgentRecord, ChangeRecord, TransitionRecord } from "../records/records.ts";

/** As many transitions as a large terminal shows. */
const NEWEST_KEPT = 60;

/** What a watch has told so far. */
export class WatchedAgents {
  readonly #agents = new Map<bigint, AgentRecord>();
  #newest: readonly TransitionRecord[] = [];
  #revision = 0n;
  #cutOff: string | undefined;
  #shown: { readonly room: number; readonly agents: readonly AgentRecord[] } | undefined;

  get revision(): bigint {
    return this.#revision;
  }

  /** Why nothing is told just now; undefined while the watch runs. */
  get cutOff(): string | undefined {
    return this.#cutOff;
  }

  /** The newest first. */
  get newest(): readonly TransitionRecord[] {
    return this.#newest;
  }

  get size(): number {
    return this.#agents.size;
  }

  get counts(): Readonly<Record<AgentStatus, number>> {
    const counts = { idle: 0, on_call: 0, busy: 0, exhausted: 0, offline: 0 };
    for (const { status } of this.#agents.values()) if (status !== "unknown") counts[status] += 1;
    return counts;
  }

  apply(event: WatchEvent<AgentRecord, ChangeRecord>): void {
    if (event.kind === "interrupted") {
      this.#cutOff = event.error?.message.replace(/\.$/, "") ?? "the service asked to go on elsewhere";
      return;
    }
    this.#cutOff = undefined;
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
      const news = event.changes.map(({ transition }) => transition).reverse();
      this.#newest = [...news, ...this.#newest].slice(0, NEWEST_KEPT);
    }
  }

  /** As many as there is room for: all of them by name, or those that changed last. */
  shown(room: number): readonly AgentRecord[] {
    // Asked several times a second, also where nothing happens, and of many.
    if (this.#shown?.room !== room) this.#shown = { room, agents: this.#sorted(room) };
    return this.#shown.agents;
  }

  #sorted(room: number): readonly AgentRecord[] {
    const all = [...this.#agents.values()];
    if (all.length <= room) return all.sort((one, other) => (one.agentId < other.agentId ? -1 : 1));
    return all.sort((one, other) => Number(other.revision - one.revision)).slice(0, room);
  }
}
