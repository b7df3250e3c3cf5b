import type pg from "pg";
import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { Incident, IncidentQuery, Page } from "../domain/directories.ts";
import type { Database } from "./database.ts";
import { pageOf } from "./page.ts";
import { namedQuery } from "./queries.ts";
import { retryRead } from "./retries.ts";

const LIST_INCIDENTS = namedQuery("list-incidents");
const READ_INCIDENT = namedQuery("read-incident");
const BRAKE_CLAWS = namedQuery("brake-claws");
const BRAKE_EXPIRIES = namedQuery("brake-expiries");
const RECORD_CONNECTIONS = namedQuery("record-connections");
const FORGET_CONNECTIONS = namedQuery("forget-connections");

/** Larger than the number of any incident. */
const BEYOND_ALL = 2n ** 63n - 1n;

interface IncidentRow {
  readonly number: bigint;
  readonly incident_id: string;
  readonly claw_identifier: string;
  readonly since: Micros;
  readonly last_heartbeat: Micros | null;
  readonly agents: bigint;
  readonly agents_back: bigint;
  readonly ended_at: Micros | null;
}

/**
 * A page of incidents, the newest first.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE`
 */
export async function listIncidents(pool: pg.Pool, query: IncidentQuery): Promise<Page<Incident>> {
  const { after, limit, scope } = query;
  const ofScope = scope?.kind === "claw" ? scope.clawIdentifier : undefined;
  const clawIdentifier = query.clawIdentifier ?? ofScope;
  if (ofScope !== undefined && clawIdentifier !== ofScope) return { rows: [], next: undefined };
  const agentIds = scope?.kind === "agents" ? [...scope.agentIds] : null;
  const values = [after ?? BEYOND_ALL, clawIdentifier ?? null, limit + 1, agentIds];
  return await retryRead(async () => {
    const { rows } = await pool.query<IncidentRow>({ ...LIST_INCIDENTS, values });
    const page = pageOf(rows, limit, ({ number }) => number);
    return { rows: page.rows.map(incidentFromRow), next: page.next };
  });
}

function incidentFromRow(row: IncidentRow): Incident {
  return {
    incidentId: row.incident_id,
    clawIdentifier: row.claw_identifier,
    since: row.since,
    endedAt: row.ended_at,
    agents: row.agents,
    agentsBack: row.agents_back,
    lastHeartbeat: row.last_heartbeat,
  };
}

/** The newest incident of a claw. */
export interface SilentClaw {
  readonly incidentId: string;
  readonly clawIdentifier: string;
  readonly since: Micros;
  /** The agents that were not offline when it began. */
  readonly silentAgents: bigint;
  /** The agents that went offline up to now. */
  readonly agents: bigint;
  readonly lastHeartbeat: Micros | null;
  /** From where the claw connected last; null: unknown. */
  readonly peer: string | null;
}

/** Reads the newest incident of a claw; undefined without one. */
export async function readSilentClaw(database: Database, clawIdentifier: string): Promise<SilentClaw | undefined> {
  const { rows } = await database.feed.query<{
    incident_id: string;
    claw_identifier: string;
    since: Micros;
    silent_agents: bigint | null;
    agents: bigint;
    last_heartbeat: Micros | null;
    peer: string | null;
  }>({ ...READ_INCIDENT, values: [clawIdentifier] });
  const [row] = rows;
  return (
    row && {
      incidentId: row.incident_id,
      clawIdentifier: row.claw_identifier,
      since: row.since,
      silentAgents: row.silent_agents ?? row.agents,
      agents: row.agents,
      lastHeartbeat: row.last_heartbeat,
      peer: row.peer,
    }
  );
}

/** The silent claws of a mass silence. */
export interface MassSilence {
  readonly claws: number;
  /** The first twenty of them. */
  readonly named: readonly Pick<SilentClaw, "incidentId" | "clawIdentifier" | "lastHeartbeat" | "peer">[];
}

/** The claws that fell silent since one lease before the brake engaged. */
export async function readMassSilence(database: Database, engagedAt: Micros): Promise<MassSilence> {
  const { rows } = await database.feed.query<{
    claws: bigint;
    claw_identifier: string;
    incident_id: string;
    peer: string | null;
    last_heartbeat: Micros | null;
  }>({ ...BRAKE_CLAWS, values: [toRfc3339(engagedAt)] });
  return {
    claws: Number(rows[0]?.claws ?? 0n),
    named: rows.map((row) => ({
      incidentId: row.incident_id,
      clawIdentifier: row.claw_identifier,
      lastHeartbeat: row.last_heartbeat,
      peer: row.peer,
    })),
  };
}

/** How many leases have expired since the brake engaged. */
export async function countExpiries(database: Database, engagedAt: Micros): Promise<number> {
  const { rows } = await database.feed.query<{ agents: bigint }>({
    ...BRAKE_EXPIRIES,
    values: [toRfc3339(engagedAt)],
  });
  return Number(rows[0]?.agents ?? 0n);
}

/** Records from which address claws connected. @param peers addresses by claw */
export async function recordConnections(database: Database, peers: ReadonlyMap<string, string>): Promise<void> {
  await database.feed.query({ ...RECORD_CONNECTIONS, values: [[...peers.keys()], [...peers.values()]] });
}

/** Deletes the addresses of claws without agents. */
export async function forgetConnections(database: Database): Promise<void> {
  await database.feed.query({ ...FORGET_CONNECTIONS });
}
