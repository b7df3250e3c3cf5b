import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TransitionQuery } from "../../src/domain/directories.ts";
import { transitionsWithin } from "../../src/storage/transition-pages.ts";
import { createTestStorage } from "../support/storage.ts";

const ROWS = 1_000_000;
const LIMIT = 50;
const BATCH = 50_000;

let storage: Awaited<ReturnType<typeof createTestStorage>>;
let first = 0n;
let last = 0n;
/** A log of a million transitions. Everything that the filters look for is rare, and far from both ends of the log. */
beforeAll(async () => {
  storage = await createTestStorage();
  const [counter] = await storage.query<{ revision: bigint }>(
    `UPDATE revision_counter SET revision = revision + $1::bigint,
       partitioned_until = add_transition_partitions(revision + $1::bigint + 1) RETURNING revision`,
    [ROWS],
  );
  last = counter?.revision ?? 0n;
  first = last - BigInt(ROWS);
  await storage.query("SELECT add_transition_partitions($1)", [first]);
  // A statement has a time limit.
  for (let done = 0; done < ROWS; done += BATCH)
    await storage.query(
      `INSERT INTO agent_transitions (revision, agent, agent_id, user_id, from_status, to_status, from_claw_identifier,
       to_claw_identifier, cause, actor, occurred_at, incident_id, agent_created_at, status_changed_at)
     SELECT $1::bigint + n, n % 10000, 'agent-' || n % 10000, n % 10000, 'idle', 'busy',
       CASE WHEN n BETWEEN 400000 AND 400100 THEN 'rare-claw' ELSE 'claw-' || n % 100 END, 'claw-' || n % 100,
       CASE WHEN n BETWEEN 400000 AND 400100 THEN 'moved' WHEN n % 2 = 0 THEN 'report' ELSE 'service' END, 'server',
       '2026-01-01'::timestamptz + n * interval '1 second', CASE WHEN n BETWEEN 400000 AND 400100 THEN 'rare' END, now(), now()
     FROM generate_series($2::integer + 1, $2::integer + $3::integer) n`,
      [first, done, BATCH],
    );
}, 300_000);
afterAll(() => storage[Symbol.asyncDispose]());

interface Plan {
  readonly "Node Type": string;
  readonly "Actual Rows": number;
  readonly "Actual Loops": number;
  readonly "Rows Removed by Filter"?: number;
  readonly "Relation Name"?: string;
  readonly Plans?: readonly Plan[];
}

/** How many rows of the log a plan reads. */
function rowsRead(plan: Plan): number {
  const own = plan["Relation Name"]?.startsWith("agent_transitions")
    ? (plan["Actual Rows"] + (plan["Rows Removed by Filter"] ?? 0)) * plan["Actual Loops"]
    : 0;
  return (plan.Plans ?? []).reduce((sum, child) => sum + rowsRead(child), own);
}

const SINCE = Date.UTC(2026, 0, 1) * 1_000 + 999_000 * 1_000_000;

describe.each([
  ["with the statistics of the planner", true],
  ["without statistics, as in a new partition", false],
])("a filter over a log of a million rows, %s", (_, analyzed) => {
  beforeAll(async () => {
    if (analyzed) await storage.query("ANALYZE agent_transitions");
    else
      await storage.query(
        "DELETE FROM pg_statistic WHERE starelid IN (SELECT inhrelid FROM pg_inherits) OR starelid = 'agent_transitions'::regclass",
      );
  });

  test.each<[string, Partial<TransitionQuery>]>([
    ["cause", { causes: ["moved"] }],
    ["causes", { causes: ["moved", "goodbye"] }],
    ["a cause that no transition has", { causes: ["deleted"] }],
    ["claw", { clawIdentifier: "claw-7" }],
    ["a claw that agents left", { clawIdentifier: "rare-claw" }],
    ["a claw that no agent was on", { clawIdentifier: "nowhere" }],
    ["claw and cause", { clawIdentifier: "rare-claw", causes: ["moved"] }],
    ["incident", { incidentId: "rare" }],
    ["an incident that does not exist", { incidentId: "none" }],
    ["agent and cause", { agentId: "agent-77", causes: ["deleted"] }],
    ["instant", { since: SINCE }],
  ])("reads few rows and is no scan: %s", async (_name, filter) => {
    for (const newestFirst of [false, true]) {
      const query: TransitionQuery = {
        agentId: undefined,
        afterRevision: 0n,
        newestFirst,
        after: undefined,
        upTo: undefined,
        limit: LIMIT,
        ...filter,
      };
      // As listTransitions finds the first revision of an instant.
      const [from] = await storage.query<{ revision: bigint }>(
        "SELECT revision_before($1::timestamptz, $2, $3) AS revision",
        [new Date((filter.since ?? 0) / 1_000).toISOString(), first, last],
      );
      const range = { first: from?.revision ?? 0n, last };
      const { sql, bindings } = transitionsWithin(storage.database.knex, query, range).toKnexQuery().toSQL().toNative();
      const [row] = await storage.query<{ "QUERY PLAN": readonly { readonly Plan: Plan }[] }>(
        `EXPLAIN (ANALYZE, FORMAT JSON) ${sql}`,
        [...bindings],
      );
      const plan = row?.["QUERY PLAN"][0]?.Plan;
      if (plan === undefined) throw new TypeError("EXPLAIN returns a plan");
      expect(rowsRead(plan), JSON.stringify(plan)).toBeLessThan(2_000);
    }
  });
});
