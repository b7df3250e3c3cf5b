import { Client } from "pg";
import { CAUSE_OF_NEXT } from "../support/releases.ts";
import type { Instant } from "./ledger.ts";

/** A row of the log of transitions, as plain SQL gives it. */
export interface LoggedTransition {
  readonly revision: bigint;
  readonly agentId: string;
  readonly from: string | null;
  readonly to: string | null;
  readonly cause: string;
  /** Whether a replica of the next release made it. */
  readonly ofNext: boolean;
  readonly at: Instant;
  readonly previousRevision: bigint | null;
  readonly incidentId: string | null;
}

/** An agent as in its row. */
export interface AgentRow {
  readonly agentId: string;
  readonly status: string;
  readonly revision: bigint;
}

interface Row {
  revision: string;
  agent_id: string;
  from_status: string | null;
  to_status: string | null;
  cause: string;
  at: number;
  previous_revision: string | null;
  incident_id: string | null;
}

const READ = `
  SELECT revision::text, agent_id, from_status, to_status, cause, incident_id, previous_revision::text,
    extract(epoch FROM occurred_at)::float8 * 1000 AS at
  FROM agent_transitions WHERE revision > $1 ORDER BY revision LIMIT 10000`;

/** Reads the log of transitions and the agents' rows, nothing else, on a connection past every proxy. Changes nothing. */
export class LogReader implements AsyncDisposable {
  readonly #url: () => string;
  #client: Client | undefined;

  constructor(url: () => string) {
    this.#url = url;
  }

  /** The transitions after a revision. @throws while the database is away */
  async after(revision: bigint): Promise<LoggedTransition[]> {
    const read: LoggedTransition[] = [];
    let place = revision;
    for (;;) {
      const { rows } = await (await this.#connected()).query<Row>(READ, [String(place)]);
      for (const row of rows) read.push(transitionOf(row));
      const last = read.at(-1);
      if (rows.length === 0 || last === undefined) return read;
      place = last.revision;
    }
  }

  /** The whole log and the agents' rows as of one instant. @throws while the database is away */
  async everything(after: bigint): Promise<{ transitions: LoggedTransition[]; agents: AgentRow[] }> {
    const client = await this.#connected();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    const transitions = await this.after(after);
    const agents = await this.#agents();
    await client.query("COMMIT");
    return { transitions, agents };
  }

  async #agents(): Promise<AgentRow[]> {
    const client = await this.#connected();
    const { rows } = await client.query<{ agent_id: string; status: string; revision: string }>(
      "SELECT agent_id, status, revision::text FROM agents",
    );
    return rows.map(({ agent_id, status, revision }) => ({ agentId: agent_id, status, revision: BigInt(revision) }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client?.end().catch(() => undefined);
  }

  async #connected(): Promise<Client> {
    if (this.#client !== undefined) return this.#client;
    const client = new Client({ connectionString: this.#url(), connectionTimeoutMillis: 2_000, query_timeout: 10_000 });
    client.on("error", () => undefined);
    client.once("end", () => {
      if (this.#client === client) this.#client = undefined;
    });
    await client.connect();
    await client.query("SET default_transaction_read_only = on");
    this.#client = client;
    return client;
  }
}

function transitionOf(row: Row): LoggedTransition {
  return {
    revision: BigInt(row.revision),
    agentId: row.agent_id,
    from: row.from_status,
    to: row.to_status,
    ofNext: row.cause === CAUSE_OF_NEXT,
    // The next release stores another cause for reports. They obey the same rules.
    cause: row.cause === CAUSE_OF_NEXT ? "report" : row.cause,
    at: row.at,
    previousRevision: row.previous_revision === null ? null : BigInt(row.previous_revision),
    incidentId: row.incident_id,
  };
}
