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

/** What only the database tells of an agent's session and lease. */
export class SessionWitness {
  readonly #service: () => RunningService;

  constructor(service: () => RunningService) {
    this.#service = service;
  }

  /** What the log tells of an agent after its creation. */
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

  /** The stream is gone, as far as the service knows; what is left is the lease that was given last. */
  async letGo(agentId: string): Promise<string> {
    const { lease } = await until("the service notices the end of the stream", async () => {
      const hold = await this.holdOf(agentId);
      return !hold.held && hold;
    });
    if (lease === null) throw new Error("the lease ended with the stream");
    return lease;
  }

  /** Waits for the end of a lease; by how many milliseconds it came after its moment. */
  async endOf(agentId: string, lease: string): Promise<number> {
    return await until("the lease ends", async () => {
      const [row] = await this.#service().query<{ late: number }>(
        `SELECT extract(epoch FROM occurred_at - $2::timestamptz)::float8 * 1000 AS late
         FROM agent_transitions WHERE agent_id = $1 AND cause = 'lease_expired'`,
        agentId,
        lease,
      );
      return row?.late;
    });
  }
}
