import { createHash } from "node:crypto";
import type { Agent } from "../domain/agent.ts";
import type { Database } from "../storage/database.ts";
import { failureKind } from "../storage/failures.ts";
import { claimAgents } from "../storage/liveness.ts";
import type { HeldAgent } from "./held-agent.ts";
import type { Logger } from "./logger.ts";

/** Agents claimed in one statement at most. */
const LARGEST_BATCH = 1_000;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 1_000;

export interface ClaimResult {
  /** The agent afterwards; undefined: there is none. */
  readonly agent: Agent | undefined;
  readonly claimed: boolean;
}

interface WaitingClaim {
  readonly holder: HeldAgent;
  resolve(result: ClaimResult): void;
}

/**
 * Claims agents for the sessions of this replica, many in one statement. Claims of one agent are made in the order
 * they came, which decides between two processes; between two streams of one process their generation decides.
 */
export class Claims {
  readonly #database: Database;
  readonly #replica: number;
  readonly #log: Logger;
  #waiting: WaitingClaim[] = [];
  #running = false;
  #closed = false;

  constructor(database: Database, replica: number, log: Logger) {
    this.#database = database;
    this.#replica = replica;
    this.#log = log;
  }

  claim(holder: HeldAgent): Promise<ClaimResult | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#waiting.push({ holder, resolve });
      if (this.#running) return;
      this.#running = true;
      // What the same message asks for shares a statement.
      setImmediate(() => void this.#run());
    });
  }

  /** Claims that wait for a database that is away are given up. */
  close(): void {
    this.#closed = true;
  }

  async #run(): Promise<void> {
    let retryMs = FIRST_RETRY_MS;
    while (this.#waiting.length > 0) {
      const batch = this.#take();
      try {
        await this.#attempt(batch);
        retryMs = FIRST_RETRY_MS;
      } catch (error) {
        if (failureKind(error) === "defect") this.#log.error({ err: error }, "agents cannot be claimed");
        if (this.#closed) break;
        this.#waiting.unshift(...batch);
        await new Promise((resolve) => setTimeout(resolve, retryMs * (0.5 + Math.random() / 2)));
        retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
      }
    }
    this.#running = false;
  }

  #take(): WaitingClaim[] {
    const batch = new Map<string, WaitingClaim>();
    const rest: WaitingClaim[] = [];
    for (const waiting of this.#waiting) {
      const { agentId, session } = waiting.holder;
      if (session.closed) continue;
      if (batch.has(agentId) || batch.size >= LARGEST_BATCH) rest.push(waiting);
      else batch.set(agentId, waiting);
    }
    this.#waiting = rest;
    return [...batch.values()];
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
        fresh: holder.state === "new",
      })),
    );
    for (const { holder, resolve } of batch) {
      const agent = agents.get(holder.agentId);
      // Read after the claim: if the epoch moved on in between, somebody else has claimed it since.
      resolve({ agent, claimed: agent !== undefined && epochs.get(agent.id) === agent.epoch });
    }
  }
}

/** A claw process's name as a UUID: the column is narrow, whatever the claw calls itself. */
export function instanceKey(instanceId: string): string {
  const hex = createHash("sha256").update(instanceId).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}
