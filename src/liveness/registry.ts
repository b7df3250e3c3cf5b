import type { Micros } from "../../common/contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import { AgentEntry } from "./agent-entry.ts";
import { LeaseWheel } from "./lease-wheel.ts";

/** The agents that this replica serves, and the ends of the leases that it watches. */
export class Registry {
  readonly #entries = new Map<string, AgentEntry>();
  readonly #wheel: LeaseWheel<AgentEntry>;

  /** `now` by the database's clock. */
  constructor(now: Micros) {
    this.#wheel = new LeaseWheel(now);
  }

  get size(): number {
    return this.#entries.size;
  }

  get(agentId: string): AgentEntry | undefined {
    return this.#entries.get(agentId);
  }

  entries(): Iterable<AgentEntry> {
    return this.#entries.values();
  }

  /** The agent's entry, new or not. Replaces the entry of a former agent with the same `agent_id`. */
  open(id: bigint, agentId: string): AgentEntry {
    const existing = this.#entries.get(agentId);
    if (existing !== undefined && existing.id === id) return existing;
    if (existing !== undefined) this.revoke(existing);
    const entry = new AgentEntry(id, agentId);
    this.#entries.set(agentId, entry);
    return entry;
  }

  /** Takes an agent as the database has it, with its lease, unless this replica knows a newer state. */
  update(entry: AgentEntry, agent: Agent): void {
    if (entry.update(agent)) this.renew(entry, agent.leaseExpiresAt);
  }

  /** The lease ends at `leaseExpiresAt`; null: there is none. */
  renew(entry: AgentEntry, leaseExpiresAt: Micros | null): void {
    entry.heldBack = false;
    entry.dueAt = leaseExpiresAt;
    this.#wheel.schedule(entry);
  }

  /** The database does not let the lease expire yet: the reaper asks again at `until`. */
  holdBack(entry: AgentEntry, until: Micros): void {
    this.renew(entry, until);
    entry.heldBack = true;
  }

  /** This replica does not watch the lease any more. */
  revoke(entry: AgentEntry): void {
    entry.dueAt = null;
    if (this.#entries.get(entry.agentId) === entry) this.#entries.delete(entry.agentId);
  }

  /** Removes the entry if it has no session, no pending beat and no lease: entries of agents that left would pile up. */
  prune(entry: AgentEntry): void {
    if (entry.holder === undefined && !entry.busy && entry.dueAt === null) this.revoke(entry);
  }

  /** The entries whose leases have ended, as far as this replica knows. Each leaves the wheel. */
  due(now: Micros): AgentEntry[] {
    return this.#wheel.due(now);
  }
}
