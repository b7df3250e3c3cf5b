import type pg from "pg";
import type { Agent } from "../domain/agent.ts";
import type { AgentKey } from "../domain/directories.ts";
import { type AgentRow, agentFromRow } from "./agent-row.ts";
import { BatchedReads } from "./batched-reads.ts";
import { namedQuery } from "./queries.ts";
import { retryRead } from "./retries.ts";

const GET_AGENTS = namedQuery("get-agents");
const GET_AGENTS_OF_USERS = namedQuery("get-agents-of-users");

/**
 * A lookup by key takes about a millisecond. A longer one waits for a dead connection, and the calls behind it wait as
 * well.
 */
const READ_TIMEOUT_MS = 3_000;

/** Reads agents by their keys: the most frequent call, from hundreds of programs at the same time. */
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

  /**
   * The agents that exist, in any order.
   *
   * @throws Refusal `DATABASE_UNAVAILABLE`
   */
  async getAll(agentIds: readonly string[]): Promise<Agent[]> {
    return (await this.#read(GET_AGENTS, agentIds)).map(agentFromRow);
  }

  async #read(query: ReturnType<typeof namedQuery>, keys: readonly (string | bigint)[]): Promise<AgentRow[]> {
    // The driver accepts a timeout for a single query, but its types do not declare it.
    const config = { ...query, values: [keys], query_timeout: READ_TIMEOUT_MS };
    return await retryRead(async () => {
      const { rows } = await this.#pool.query<AgentRow>(config);
      return rows;
    });
  }
}
