import type pg from "pg";
import type { Agent } from "../domain/agent.ts";
import type { AgentKey } from "../domain/directory.ts";
import { type AgentRow, agentFromRow } from "./agent-row.ts";
import { BatchedReads } from "./batched-reads.ts";
import { namedQuery } from "./queries.ts";
import { retryRead } from "./retries.ts";

const GET_AGENTS = namedQuery("get-agents");
const GET_AGENTS_OF_USERS = namedQuery("get-agents-of-users");

/**
 * A lookup by a key takes a millisecond. Who waits longer waits for a connection that carries nothing any more, and
 * everybody behind it waits, too.
 */
const GIVE_UP_MS = 3_000;

/** Reads of agents by their keys: the commonest call of all, from hundreds of programs at once. */
export class AgentReads {
  readonly #pool: pg.Pool;
  readonly #byAgentId: BatchedReads<string, AgentRow>;
  readonly #byUserId: BatchedReads<bigint, AgentRow>;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
    this.#byAgentId = new BatchedReads({
      read: (agentIds) => this.#read(GET_AGENTS, agentIds),
      keyOf: (row) => row.agent_id,
    });
    this.#byUserId = new BatchedReads({
      read: (userIds) => this.#read(GET_AGENTS_OF_USERS, userIds),
      keyOf: (row) => row.user_id,
    });
  }

  /** @throws Refusal `DATABASE_UNAVAILABLE` */
  async get(key: AgentKey): Promise<Agent | undefined> {
    const row = await ("agentId" in key ? this.#byAgentId.get(key.agentId) : this.#byUserId.get(key.userId));
    return row && agentFromRow(row);
  }

  /** Those that there are, in any order. @throws Refusal `DATABASE_UNAVAILABLE` */
  async getAll(agentIds: readonly string[]): Promise<Agent[]> {
    return (await this.#read(GET_AGENTS, agentIds)).map(agentFromRow);
  }

  async #read(query: ReturnType<typeof namedQuery>, keys: readonly (string | bigint)[]): Promise<AgentRow[]> {
    // The driver takes a time of its own for a query, which its types do not know.
    const config = { ...query, values: [keys], query_timeout: GIVE_UP_MS };
    return await retryRead(async () => {
      const { rows } = await this.#pool.query<AgentRow>(config);
      return rows;
    });
  }
}
