import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../common/logging/logger.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import { Queue } from "../../common/scheduling/queue.ts";
import type { Agent } from "../domain/agent.ts";
import { claimOf } from "../domain/session-start.ts";
import { lockedAgents } from "../storage/change-group.ts";
import type { Database } from "../storage/database.ts";
import { failureKind, isLockTimeout, isPermanent, mayBeOneRow } from "../storage/failures.ts";
import { claimAgents } from "../storage/lease-queries.ts";
import type { HeldAgent } from "./held-agent.ts";

/** The greatest number of agents in one statement. */
const LARGEST_BATCH = 1_000;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 1_000;
/** How often claims that wait for this process to be awake look again, in milliseconds. */
const AWAKE_POLL_MS = 25;

export interface ClaimResult {
  /** The agent afterwards; undefined: there is none. */
  readonly agent: Agent | undefined;
  readonly claimed: boolean;
}

interface WaitingClaim {
  readonly holder: HeldAgent;
  /** The connection of an earlier attempt was lost: the database may have made the claim. */
  inDoubt: boolean;
  resolve(result: ClaimResult | undefined): void;
}

/**
 * Claims agents for the sessions of this replica, many in one statement. Claims of one agent are made in the order they came:
 * of two processes the later one wins. Of two streams of one process, the higher generation wins.
 */
export class Claims {
  readonly #database: Database;
  readonly #replica: number;
  readonly #log: Logger;
  readonly #isHeldHere: (agent: Agent) => boolean;
  readonly #isAwake: () => boolean;
  readonly #leaseMs: () => number;
  readonly #waiting = new Queue<WaitingClaim>();
  /** Claims of agents whose rows are locked, in their order. They are made one by one, so that the others do not wait. */
  #apart: WaitingClaim[] = [];
  #running = false;
  /** The number of unsettled claims of each agent. */
  readonly #wanted = new Map<string, number>();
  /** When the oldest claim was sent that the database has not made, by `performance.now()`. Undefined: there is none. */
  #unansweredSince: number | undefined;
  #batchSize = LARGEST_BATCH;
  #closed = false;

  /**
   * `isHeldHere`: whether a session of this replica holds the agent under its epoch. `isAwake`: whether this process has
   * noticed which streams ended while it did not run. `leaseMs`: the length of a lease now, in milliseconds.
   */
  constructor(options: {
    database: Database;
    replica: number;
    log: Logger;
    isHeldHere(agent: Agent): boolean;
    isAwake(): boolean;
    leaseMs(): number;
  }) {
    this.#database = options.database;
    this.#replica = options.replica;
    this.#log = options.log;
    this.#isHeldHere = options.isHeldHere;
    this.#isAwake = () => options.isAwake();
    this.#leaseMs = () => options.leaseMs();
  }

  /** Claims an agent. Undefined: the replica stops, or the database cannot make the claim. */
  claim(holder: HeldAgent): Promise<ClaimResult | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#want(holder.agentId, 1);
      const settle = (result: ClaimResult | undefined): void => {
        this.#want(holder.agentId, -1);
        resolve(result);
      };
      this.#waiting.push({ holder, inDoubt: false, resolve: settle });
      if (this.#running) return;
      this.#running = true;
      // The claims of one message share a statement.
      setImmediate(() => void this.#run());
    });
  }

  /** For how many milliseconds the database has not made the oldest claim; 0: no claim waits. */
  get stuckMs(): number {
    return this.#unansweredSince === undefined ? 0 : performance.now() - this.#unansweredSince;
  }

  /** Whether a stream of this replica waits for a claim of this agent. */
  isWaitingFor(agentId: string): boolean {
    return this.#wanted.has(agentId);
  }

  /** Gives up the claims that wait for a database that is away. */
  close(): void {
    this.#closed = true;
  }

  #want(agentId: string, more: 1 | -1): void {
    const wanted = (this.#wanted.get(agentId) ?? 0) + more;
    if (wanted > 0) this.#wanted.set(agentId, wanted);
    else this.#wanted.delete(agentId);
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(FIRST_RETRY_MS, LONGEST_RETRY_MS);
    while (this.#waiting.size > 0 || this.#apart.length > 0) {
      // Of two processes the later claim wins. A first beat that was stuck here, on a stream that has ended since, would
      // take the agent from the process that holds it now.
      while (!this.#isAwake() && !this.#closed) await sleep(AWAKE_POLL_MS);
      let batch = this.#take();
      const isApart = batch.length === 0;
      if (isApart) batch = this.#takeApart();
      // A locked row does not mean that the database is stuck.
      if (isApart) this.#unansweredSince = undefined;
      else this.#unansweredSince ??= performance.now();
      try {
        await this.#attempt(batch);
        this.#unansweredSince = undefined;
        backoff.reset();
        this.#batchSize = LARGEST_BATCH;
      } catch (error) {
        const kind = failureKind(error);
        if (kind === "lost") for (const waiting of batch) waiting.inDoubt = true;
        else if (isPermanent(kind)) {
          this.#unansweredSince = undefined;
          this.#log.error({ event: "claim.failed", err: error }, "failed to claim agents");
        }
        if (this.#closed) break;
        const [only] = batch;
        if (isPermanent(kind) && only !== undefined && batch.length === 1) {
          only.resolve(undefined);
          continue;
        }
        const isOne = mayBeOneRow(error);
        if (isApart) this.#putBackApart(batch);
        else {
          const locked = await this.#lockedOf(batch, error);
          this.#apart.push(...batch.filter((waiting) => locked.has(waiting.holder.agentId)));
          this.#waiting.putBack(batch.filter((waiting) => !locked.has(waiting.holder.agentId)));
          // One of them makes the statement fail: smaller statements find it.
          this.#batchSize = isOne && locked.size === 0 ? Math.ceil(batch.length / 2) : LARGEST_BATCH;
        }
        await new Promise((resolve) => setTimeout(resolve, backoff.next()));
      }
    }
    this.#unansweredSince = undefined;
    this.#running = false;
  }

  /** Reads no more of the queue than one batch: where a whole fleet connects at once, it is very long. */
  #take(): WaitingClaim[] {
    const batch = new Map<string, WaitingClaim>();
    const later: WaitingClaim[] = [];
    while (batch.size < this.#batchSize) {
      const waiting = this.#waiting.take();
      if (waiting === undefined) break;
      const { agentId, session } = waiting.holder;
      if (session.closed) this.#want(agentId, -1);
      else if (this.#apart.some(({ holder }) => holder.agentId === agentId)) this.#apart.push(waiting);
      else if (batch.has(agentId)) later.push(waiting);
      else batch.set(agentId, waiting);
    }
    this.#waiting.putBack(later);
    return [...batch.values()];
  }

  #takeApart(): WaitingClaim[] {
    for (;;) {
      const first = this.#apart.shift();
      if (first === undefined) return [];
      if (!first.holder.session.closed) return [first];
      this.#want(first.holder.agentId, -1);
    }
  }

  /** Behind the claims of other agents, and before later claims of the same agents. */
  #putBackApart(batch: readonly WaitingClaim[]): void {
    const agentIds = new Set(batch.map(({ holder }) => holder.agentId));
    const isOwn = ({ holder }: WaitingClaim): boolean => agentIds.has(holder.agentId);
    this.#apart = [...this.#apart.filter((one) => !isOwn(one)), ...batch, ...this.#apart.filter(isOwn)];
  }

  async #lockedOf(batch: readonly WaitingClaim[], error: unknown): Promise<ReadonlySet<string>> {
    const agentIds = batch.map(({ holder }) => holder.agentId);
    return isLockTimeout(error) ? await lockedAgents(this.#database.feed, agentIds) : new Set();
  }

  async #attempt(batch: readonly WaitingClaim[]): Promise<void> {
    if (batch.length === 0) return;
    const { agents, epochs } = await claimAgents(
      this.#database,
      this.#replica,
      batch.map(({ holder }) => ({
        agentId: holder.agentId,
        clawIdentifier: holder.session.clawIdentifier,
        instance: holder.session.instance,
        generation: holder.session.generation,
        ...claimOf(holder.start, holder.state !== "new"),
        heldUnder: holder.heldUnder,
        takesWakes: holder.session.wakesFor !== undefined,
      })),
      this.#leaseMs(),
    );
    for (const { holder, inDoubt, resolve } of batch) {
      const agent = agents.get(holder.agentId);
      // The agent was read after the claim: a different epoch means that another session has claimed it since.
      const claimed = agent !== undefined && epochs.get(agent.id) === agent.epoch;
      // The response of an earlier attempt was lost, and its own claim looks like that of another session.
      const ours = inDoubt && agent?.held && agent.replicaId === this.#replica;
      resolve({ agent, claimed: claimed || (ours === true && !this.#isHeldHere(agent)) });
    }
  }
}

/** A claw process's name as a UUID, since names are of any length and the column is narrow. */
export function instanceKey(instanceId: string): string {
  const hex = createHash("sha256").update(instanceId).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}
