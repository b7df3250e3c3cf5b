import type pg from "pg";
import type { Wake } from "../domain/wake.ts";
import type { Admission } from "../domain/wake-admission.ts";
import { namedQuery } from "./queries.ts";
import { type PauseJson, pauseFromJson, type WakeRow, wakeFromRow } from "./wake-row.ts";

const WAKES_BY_NAME = namedQuery("wakes-by-name");
const ADMISSION_OF_AGENTS = namedQuery("admission-of-agents");

/** What a change needs to know beside its agent. */
export interface WantedFacts {
  /** The names of wakes. */
  readonly wakeIds: readonly string[];
  /** Whether the agent can be woken. */
  readonly admission: boolean;
}

export interface StoredWake {
  readonly wake: Wake;
  readonly contentHash: Uint8Array;
}

export interface WakeFacts {
  /** The wakes that exist, by their names, of any agent. */
  readonly wakes: ReadonlyMap<string, StoredWake>;
  /** By the numbers of agents. */
  readonly admissions: ReadonlyMap<bigint, Admission>;
}

export const NO_FACTS: WakeFacts = { wakes: new Map(), admissions: new Map() };

interface AdmissionRow {
  readonly agent: bigint;
  readonly takes_wakes: boolean;
  readonly is_served: boolean;
  readonly pause: PauseJson | null;
  readonly first_queued: bigint | null;
}

export async function readWakeFacts(
  pool: pg.Pool,
  wakeIds: readonly string[],
  agents: readonly bigint[],
): Promise<WakeFacts> {
  const [wakes, admissions] = await Promise.all([
    wakeIds.length === 0 ? [] : pool.query<WakeRow>({ ...WAKES_BY_NAME, values: [wakeIds] }).then(({ rows }) => rows),
    agents.length === 0
      ? []
      : pool.query<AdmissionRow>({ ...ADMISSION_OF_AGENTS, values: [agents] }).then(({ rows }) => rows),
  ]);
  return {
    wakes: new Map(wakes.map((row) => [row.wake_id, { wake: wakeFromRow(row), contentHash: row.content_hash }])),
    admissions: new Map(
      admissions.map((row) => [
        row.agent,
        {
          takesWakes: row.takes_wakes,
          isServed: row.is_served,
          pause: row.pause === null ? null : pauseFromJson(row.pause),
          firstQueued: row.first_queued,
        },
      ]),
    ),
  };
}

/** Wakes by their names, those that exist. */
export async function readWakes(pool: pg.Pool, wakeIds: readonly string[]): Promise<Wake[]> {
  const { rows } = await pool.query<WakeRow>({ ...WAKES_BY_NAME, values: [wakeIds] });
  return rows.map(wakeFromRow);
}
