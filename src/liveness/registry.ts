import type { Micros } from "../contract/time.ts";
import type { Agent } from "../domain/agent.ts";
import { AgentEntry } from "./agent-entry.ts";
import { LeaseWheel } from "./lease-wheel.ts";

/** The agents that this replica has something to do with, and when their leases end. */
export class Registry {
  readonly #entries = new Map<string, AgentEntry>();
  readonly #wheel: LeaseWheel<AgentEntry>;

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

  /** The agent's entry; one of a former agent with the same `agent_id` is given up. */
  open(id: bigint, agentId: string): AgentEntry {
    const existing = this.#entries.get(agentId);
    if (existing !== undefined && existing.id === id) return existing;
    if (existing !== undefined) this.forget(existing);
    const entry = new AgentEntry(id, agentId);
    this.#entries.set(agentId, entry);
    return entry;
  }

  /** Takes what the database said of an agent, its lease included. */
  learn(entry: AgentEntry, agent: Agent): void {
    if (entry.learn(agent)) this.expect(entry, agent.leaseExpiresAt);
  }

  /** The lease ends at `leaseExpiresAt`; null: there is none. */
  expect(entry: AgentEntry, leaseExpiresAt: Micros | null): void {
    entry.heldBack = false;
    entry.dueAt = leaseExpiresAt;
    this.#wheel.schedule(entry);
  }

  /** The lease has ended and must not yet: to be asked about again at `until`. */
  holdBack(entry: AgentEntry, until: Micros): void {
    this.expect(entry, until);
    entry.heldBack = true;
  }

  forget(entry: AgentEntry): void {
    entry.dueAt = null;
    if (this.#entries.get(entry.agentId) === entry) this.#entries.delete(entry.agentId);
  }

  /** Forgets an entry that nobody has to do with any more: else what said goodbye here would stay for ever. */
  dismiss(entry: AgentEntry): void {
    if (entry.holder === undefined && !entry.busy && entry.dueAt === null) this.forget(entry);
  }

  /** The entries whose leases have ended, as far as this replica knows. */
  due(now: Micros): AgentEntry[] {
    return this.#wheel.due(now);
  }
}
