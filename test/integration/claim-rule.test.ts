import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Claimant, NO_INSTANCE } from "../../src/domain/session-start.ts";
import { claimAgents } from "../../src/storage/lease-queries.ts";
import { CASES, claimantOf, OWN } from "../support/claim-table.ts";
import { createTestDatabase, type TestDatabase } from "../support/cluster.ts";
import { openReplica, type Replica } from "../support/replica.ts";

let testDatabase: TestDatabase;
let replica: Replica;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  // A started service would sweep the rows that this test writes.
  replica = await openReplica(testDatabase.url, { started: false });
});

afterAll(async () => {
  await replica[Symbol.asyncDispose]();
  await testDatabase.drop();
});

const LEASE_MS = 30_000;

let made = 0;

interface LivenessRow {
  readonly instance: string | null;
  readonly generation: string;
}

async function livenessOf(agentId: string): Promise<LivenessRow | undefined> {
  const [row] = await replica.query<LivenessRow>(
    `SELECT l.instance, l.generation FROM agent_liveness l JOIN agents a ON a.id = l.agent WHERE a.agent_id = $1`,
    agentId,
  );
  return row;
}

/** Whether the database assigns the agent to the claimant. */
async function claim(agentId: string, claimant: Claimant): Promise<boolean> {
  const { epochs } = await claimAgents(
    replica.database,
    replica.number,
    [{ agentId, clawIdentifier: undefined, ...claimant }],
    LEASE_MS,
  );
  return epochs.size === 1;
}

describe.each([
  { how: "also for agents of a live replica", heldBy: "living" },
  { how: "also for agents of a failed replica", heldBy: "gone" },
] as const)("the query that claims agents decides as the domain does, $how", ({ heldBy }) => {
  // The second round adds nothing for agents that a live replica holds.
  const cases = CASES.filter(({ last }) => heldBy === "living" || !last.held);

  test.each(cases)("$state: a stream that $asked gets it: $gets", async ({ last, asked, gets }) => {
    made += 1;
    const agentId = `agent ${made}`;
    await replica.createAgent(agentId);
    if (last.outdated) {
      // As of a history that continued elsewhere, or was lost, after the newest session in this database.
      await replica.query(
        `INSERT INTO revision_jumps (from_revision, to_revision, occurred_at)
         SELECT -$1::bigint - 1, -$1::bigint, clock_timestamp()`,
        made,
      );
    }
    await replica.query(
      `UPDATE agent_liveness SET held = $2, replica_id = $3, instance = $4, generation = $5,
         epoch = CASE WHEN $6 THEN -agent ELSE nextval('agent_epochs') END
       WHERE agent = (SELECT id FROM agents WHERE agent_id = $1)`,
      agentId,
      last.held || heldBy === "gone",
      heldBy === "gone" ? 999_999 : replica.number,
      last.instance,
      last.generation.toString(),
      last.outdated,
    );
    const before = await livenessOf(agentId);
    const [row] = await replica.query<{ epoch: bigint }>(
      "SELECT l.epoch FROM agent_liveness l JOIN agents a ON a.id = l.agent WHERE a.agent_id = $1",
      agentId,
    );
    const epoch = row?.epoch ?? 0n;
    expect(await claim(agentId, { ...claimantOf(asked), heldUnder: epoch })).toBe(gets);
    const { instance, generation } = claimantOf(asked);
    const claimed = { instance, generation: generation.toString() };
    expect(await livenessOf(agentId)).toEqual(gets ? claimed : before);
    // A restored session is older than the session of the claim.
    if (!gets) expect(await claim(agentId, { ...claimantOf(asked), heldUnder: epoch + 1n })).toBe(true);
  });
});

describe("the record that no process has held an agent", () => {
  test("applies to a new agent", async () => {
    await replica.createAgent("created");
    expect(await livenessOf("created")).toEqual({ instance: NO_INSTANCE, generation: "0" });
  });

  test("applies after a move, and no other change alters the recorded holder", async () => {
    const agentId = "moved";
    await replica.createAgent(agentId, "claw-1");
    expect(await claim(agentId, claimantOf("claims first"))).toBe(true);
    await replica.agents.updateStatus(agentId, { status: "busy", holdMs: undefined }, undefined, replica.by);
    expect(await livenessOf(agentId)).toEqual({ instance: OWN, generation: "5" });
    await replica.agents.move(agentId, "claw-1", replica.by);
    expect(await livenessOf(agentId)).toEqual({ instance: OWN, generation: "5" });
    await replica.agents.move(agentId, "claw-2", replica.by);
    expect(await livenessOf(agentId)).toEqual({ instance: NO_INSTANCE, generation: "0" });
  });
});

describe("a revision gap that no replica has recorded yet", () => {
  test.each([
    {
      what: "a promoted server",
      change: "UPDATE revision_counter SET timeline = 'FFFFFFFF'",
      restarted: true,
      lost: true,
    },
    {
      what: "another server",
      change: "UPDATE revision_counter SET system_identifier = 1",
      restarted: true,
      lost: true,
    },
    { what: "a copied database", change: "UPDATE revision_history SET database_oid = 1", restarted: false, lost: true },
    // Otherwise a restart would return agents to processes that lost them long ago.
    { what: "a restart alone", change: "SELECT 1", restarted: true, lost: false },
  ])("of $what lets a session resume: $lost", async ({ change, restarted, lost }) => {
    const client = await replica.database.feed.connect();
    try {
      const [later] = await replica.query<{ epoch: bigint }>("SELECT nextval('agent_epochs') AS epoch");
      const isBefore = async () => {
        const { rows } = await client.query<{ before: boolean }>("SELECT is_before_lost_history($1) AS before", [
          later?.epoch,
        ]);
        return rows[0]?.before;
      };
      expect(await isBefore()).toBe(false);
      await client.query("BEGIN");
      // The transaction of the row itself is recorded; without it, the row would look like a copy.
      await client.query(
        `UPDATE revision_history SET written_by = pg_current_xact_id(),
           server_started_at = server_started_at - CASE WHEN $1 THEN interval '1 hour' ELSE interval '0' END`,
        [restarted],
      );
      await client.query(change);
      expect(await isBefore()).toBe(lost);
    } finally {
      await client.query("ROLLBACK");
      client.release();
    }
  });
});

test("a gap caused by a server restart permits no resume", async () => {
  const [gap] = await replica.query<{ before: boolean }>(
    `WITH gap AS (
       INSERT INTO revision_jumps (from_revision, to_revision, occurred_at, reason)
       VALUES (-1000000001, -1000000000, clock_timestamp(), 'server_started') RETURNING epoch
     ) SELECT is_before_lost_history(epoch - 1) AS before FROM gap`,
  );
  expect(gap?.before).toBe(false);
  const [noted] = await replica.query<{ before: boolean }>(
    "SELECT is_before_lost_history(epoch - 1) AS before FROM revision_jumps WHERE from_revision = -1000000001",
  );
  expect(noted?.before).toBe(false);
});

test("a process without an instance_id cannot resume", async () => {
  const agentId = "unnamed";
  await replica.createAgent(agentId);
  expect(await claim(agentId, claimantOf("claims first", false))).toBe(true);
  expect(await livenessOf(agentId)).toEqual({ instance: null, generation: "5" });
});
