import type { ProtocolClients } from "./protocol-clients.ts";
import { type RunningService, unique } from "./service.ts";
import { until } from "./until.ts";

export async function createAgent({ users }: ProtocolClients, what: string): Promise<string> {
  const agentId = unique(what);
  await users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
  return agentId;
}

export interface Hold {
  readonly held: boolean;
  readonly lease: string | null;
}

/** The fields of an agent's session and lease that only the database has. */
export class SessionWitness {
  readonly #service: () => RunningService;

  constructor(service: () => RunningService) {
    this.#service = service;
  }

  /** The transitions of an agent after its creation. */
  async storyOf(agentId: string): Promise<string[]> {
    const rows = await this.#service().query<{ cause: string; to_status: string | null }>(
      "SELECT cause, to_status FROM agent_transitions WHERE agent_id = $1 AND cause <> 'created' ORDER BY revision",
      agentId,
    );
    return rows.map(({ cause, to_status }) => `${cause}: ${to_status}`);
  }

  async holdOf(agentId: string): Promise<Hold> {
    const [hold] = await this.#service().query<Hold>(
      `SELECT l.held, l.lease_expires_at::text AS lease FROM agent_liveness l JOIN agents a ON a.id = l.agent
       WHERE a.agent_id = $1`,
      agentId,
    );
    if (hold === undefined) throw new Error(`there is no agent ${agentId}`);
    return hold;
  }

  /** Waits until the service has seen the end of the stream: its lease continues. */
  async letGo(agentId: string): Promise<void> {
    await until("the service notices the end of the stream", async () => !(await this.holdOf(agentId)).held);
  }

  /** Waits for the end of the last heartbeat's lease. @returns the milliseconds after its end */
  async endOf(agentId: string, leaseMs: number): Promise<number> {
    return await until("the lease ends", async () => {
      const [row] = await this.#service().query<{ late: number }>(
        `SELECT extract(epoch FROM t.occurred_at - l.last_heartbeat)::float8 * 1000 - $2 AS late
         FROM agent_transitions t JOIN agent_liveness l ON l.agent = t.agent
         WHERE t.agent_id = $1 AND t.cause = 'lease_expired'`,
        agentId,
        leaseMs,
      );
      return row?.late;
    });
  }
}
