import type { AgentStatus } from "../../common/contract/enum-names.ts";
import type { Transition } from "../../src/domain/agent.ts";
import { type AgentFilter, agentOf, predicateOf, type WatchedAgent } from "../../src/domain/filter.ts";
import type { LogPage, SnapshotPage } from "../../src/storage/transition-log.ts";

/** A reproducible source of numbers in [0, 1) (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/**
 * A database in memory: agents, their log and the counter, with responses that are older than their arrival.
 */
export class FakeLog {
  readonly agents = new Map<bigint, WatchedAgent>();
  readonly transitions: Transition[] = [];
  readonly gaps: { from: bigint; to: bigint }[] = [];
  revision = 100n;
  oldest = 100n;
  /** The number of queries so far. */
  reads = 0;
  pages = 0;
  /** Every query throws it while it is set. */
  failure: Error | undefined;
  /** The delays before a query is evaluated, and after it until the response arrives. */
  delay: () => Promise<unknown> = () => Promise.resolve();
  #nextId = 1n;

  async newest(): Promise<bigint> {
    return await this.#ask(() => this.revision);
  }

  async read(after: bigint, limit: number): Promise<LogPage> {
    this.reads += 1;
    return await this.#ask(() => ({
      transitions: this.transitions.filter(({ revision }) => revision > after).slice(0, limit),
      newest: this.revision,
      oldest: this.oldest,
      gaps: this.gaps.filter(({ to }) => to > after),
    }));
  }

  async beginNewHistory(seen: bigint): Promise<void> {
    await this.#ask(() => {
      if (this.revision >= seen) return;
      this.gaps.push({ from: this.revision, to: seen + 1n });
      this.revision = seen + 1n;
    });
  }

  async readSnapshotPage(filter: AgentFilter, afterId: bigint, limit: number): Promise<SnapshotPage> {
    this.pages += 1;
    const passes = predicateOf(filter);
    return await this.#ask(() => ({
      revision: this.revision,
      agents: [...this.agents.values()]
        .filter((agent) => agent.id > afterId && passes(agent))
        .sort((one, other) => Number(one.id - other.id))
        .slice(0, limit),
    }));
  }

  async #ask<Answer>(answer: () => Answer): Promise<Answer> {
    await this.delay();
    if (this.failure !== undefined) throw this.failure;
    const answered = answer();
    await this.delay();
    return answered;
  }

  create(agentId: string, clawIdentifier = "claw-a"): bigint {
    const id = this.#nextId;
    this.#nextId += 1n;
    this.#commit({
      id,
      agentId,
      cause: "created",
      fromStatus: null,
      toStatus: "idle",
      fromClaw: null,
      toClaw: clawIdentifier,
      previousRevision: null,
    });
    return id;
  }

  change(id: bigint, to: { readonly status?: AgentStatus; readonly clawIdentifier?: string }): void {
    const agent = this.#agent(id);
    this.#commit({
      ...this.#before(agent),
      cause: to.clawIdentifier === undefined ? "report" : "moved",
      toStatus: to.status ?? agent.status,
      toClaw: to.clawIdentifier ?? agent.clawIdentifier,
    });
  }

  delete(id: bigint): void {
    this.#commit({ ...this.#before(this.#agent(id)), cause: "deleted", toStatus: null, toClaw: null });
  }

  #agent(id: bigint): WatchedAgent {
    const agent = this.agents.get(id);
    if (agent === undefined) throw new Error(`there is no agent ${id}`);
    return agent;
  }

  #before(agent: WatchedAgent) {
    return {
      id: agent.id,
      agentId: agent.agentId,
      fromStatus: agent.status,
      fromClaw: agent.clawIdentifier,
      previousRevision: agent.revision,
    };
  }

  #commit(
    change: Pick<Transition, "id" | "agentId" | "cause" | "fromStatus" | "toStatus"> &
      Pick<Transition, "fromClaw" | "toClaw" | "previousRevision">,
  ): void {
    this.revision += 1n;
    const transition: Transition = {
      ...change,
      userId: change.id + 1_000n,
      revision: this.revision,
      actor: "service:test",
      occurredAt: 0,
      requestId: null,
      incidentId: null,
      exhaustion: null,
      createdAt: 0,
      statusChangedAt: 0,
      wake: null,
      openWake: null,
    };
    this.transitions.push(transition);
    if (transition.toStatus === null) this.agents.delete(transition.id);
    else this.agents.set(transition.id, agentOf(transition));
  }
}

/** The agents that pass a filter as of a revision, by the log alone. */
export function replay(transitions: readonly Transition[], upTo: bigint, filter: AgentFilter): WatchedAgent[] {
  const agents = new Map<bigint, WatchedAgent>();
  for (const transition of transitions) {
    if (transition.revision > upTo) break;
    if (transition.toStatus === null) agents.delete(transition.id);
    else agents.set(transition.id, agentOf(transition));
  }
  const passes = predicateOf(filter);
  return [...agents.values()].filter(passes);
}
