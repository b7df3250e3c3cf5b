import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { expect, test } from "vitest";
import { EVERY_AGENT } from "../../src/domain/filter.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { createEmptyDatabase } from "../support/cluster.ts";
import { openReplica } from "../support/replica.ts";
import { alive, reports } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";
import { WatchReader } from "../support/watch-reader.ts";
import { startWatchingReplica } from "../support/watching-replica.ts";

const MIGRATIONS = new URL("../../migrations/", import.meta.url);
/** The last migration of release 0.1. */
const LAST_OF_0_1 = "0004";

/** The tables as release 0.1 left them, with data in each. */
const DATA_OF_0_1 = `
  WITH u AS (
    INSERT INTO users (username, email, display_name)
    SELECT 'user ' || s, s || '@example.org', 'User ' || s FROM unnest(ARRAY['idle', 'on_call', 'busy', 'exhausted', 'billed', 'offline', 'gone']) s
    RETURNING id, username
  ), a AS (
    INSERT INTO agents (user_id, agent_id, claw_identifier, status, created_at, status_changed_at, revision)
    SELECT id, substr(username, 6), 'claw-1', CASE substr(username, 6)
      WHEN 'billed' THEN 'idle' WHEN 'gone' THEN 'offline' WHEN 'exhausted' THEN 'idle' ELSE substr(username, 6) END,
      now() - interval '1 day', now() - interval '1 hour', (SELECT revision FROM revision_counter) + row_number() OVER (ORDER BY id)
    FROM u RETURNING id, revision, status
  )
  INSERT INTO agent_liveness (agent, revision, epoch, replica_id, instance, generation, last_heartbeat, lease_expires_at)
  SELECT id, revision, nextval('agent_epochs'), 1, gen_random_uuid(), 7, now(),
    CASE status WHEN 'offline' THEN NULL ELSE now() + interval '10 minutes' END FROM a;
  UPDATE agents SET status = 'exhausted', exhaust_reason = 'rate_limit', exhausted_at = now(), recovery_at = now() + interval '1 hour',
    backoff_steps = 3, backoff_at = now() WHERE agent_id = 'exhausted';
  UPDATE agents SET status = 'exhausted', exhaust_reason = 'billing', exhausted_at = now() - interval '1 hour',
    recovery_at = now() + interval '1 second' WHERE agent_id = 'billed';
  UPDATE agents SET exhaust_reason = 'billing', exhausted_at = now(), recovery_at = now() + interval '1 day' WHERE agent_id = 'gone';
  UPDATE agents SET hold_revision = revision, hold_until = now() + interval '50 minutes' WHERE agent_id = 'busy';
  INSERT INTO replicas (deaf_after_ms) VALUES (9000);
  INSERT INTO agent_transitions (revision, agent, agent_id, user_id, to_status, to_claw_identifier, cause, actor, occurred_at,
    request_id, exhausted_at, recovery_at, exhaust_reason, agent_created_at, status_changed_at)
  SELECT revision, id, agent_id, user_id, status, claw_identifier, 'created', 'service:old', now(), 'r-' || agent_id,
    exhausted_at, recovery_at, exhaust_reason, created_at, status_changed_at FROM agents;
  UPDATE revision_counter SET revision = revision + 7;
  INSERT INTO request_ids (request_id, fingerprint) VALUES ('repeated', 'content');
  INSERT INTO claw_incidents (claw_identifier, incident_id, began_at, last_at) VALUES ('claw-9', 'i-1', now(), now());
  INSERT INTO api_tokens (key_id, secret_hash, principal, role, claw_identifier, created_by, expires_at)
    VALUES ('k1', sha256('one'), 'claw-1', 'agent', 'claw-1', 'user:root', now() + interval '30 days');
  INSERT INTO api_tokens (key_id, secret_hash, principal, role, created_by, expires_at, revoked_at, revoked_by, revocation)
    VALUES ('k2', sha256('two'), 'ada', 'admin', 'user:root', now() + interval '30 days', now(), 'user:root', 1);`;

const TABLES = [
  "users",
  "agents",
  "agent_liveness",
  "agent_transitions",
  "request_ids",
  "api_tokens",
  "revision_jumps",
];

test("an upgrade from 0.1 keeps users, agents in every status, exhaustions, holds, transitions and tokens", async () => {
  await using database = await createEmptyDatabase();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const rowsOf = async (table: string): Promise<Record<string, unknown>[]> =>
    (await client.query(`SELECT to_jsonb(t) AS row FROM ${table} t ORDER BY t::text`)).rows.map(({ row }) => row);
  try {
    await client.query(
      "CREATE TABLE schema_migrations (id serial PRIMARY KEY, name varchar(255), batch integer, migration_time timestamptz)",
    );
    for (const file of readdirSync(MIGRATIONS).sort()) {
      if (!file.endsWith(".sql") || file.slice(0, 4) > LAST_OF_0_1) continue;
      await client.query(readFileSync(new URL(file, MIGRATIONS), "utf8"));
      await client.query("INSERT INTO schema_migrations (name, batch, migration_time) VALUES ($1, 1, now())", [
        file.replace(".sql", ""),
      ]);
    }
    await client.query(DATA_OF_0_1);
    const before = new Map<string, Record<string, unknown>[]>();
    for (const table of TABLES) before.set(table, await rowsOf(table));
    const begin = (await client.query("SELECT revision - 7 AS begin FROM revision_counter")).rows[0]?.begin;

    expect((await migrate(database.url))[0]).toMatch(/^0005_/);

    for (const [table, rows] of before) {
      const after = await rowsOf(table);
      expect(after, table).toHaveLength(rows.length);
      expect(new Set(rows.map((row) => JSON.stringify(row))), table).toEqual(
        new Set(after.map((row) => oldColumns(row, rows[0]))),
      );
    }
    await using watching = await startWatchingReplica(database.url, { replica: 2 });
    await using reader = new WatchReader(watching.watches, { afterRevision: BigInt(begin) });
    await until("a watch of 0.1 goes on", () => reader.changes.length >= 7);
    expect(reader.changes.slice(0, 7).map(({ transition }) => transition.cause)).toEqual(Array(7).fill("created"));

    await using replica = await openReplica(database.url);
    const { rows } = await replica.agents.list(EVERY_AGENT, { after: undefined, limit: 100 });
    expect(
      Object.fromEntries(rows.map(({ agentId, status, exhaustion }) => [agentId, [status, exhaustion?.reason]])),
    ).toMatchObject({
      idle: ["idle", undefined],
      on_call: ["on_call", undefined],
      busy: ["busy", undefined],
      exhausted: ["exhausted", "rate_limit"],
      offline: ["offline", undefined],
      gone: ["offline", "billing"],
    });
    using stream = replica.stream({ clawIdentifier: "claw-1" });
    const results = await stream.say(reports("busy", "idle"), reports("on_call", "idle"), alive("gone"));
    expect(results).toMatchObject([
      { agentId: "busy", status: "busy", refusal: { reason: "REPORT_OUTDATED" } },
      {},
      {},
    ]);
    expect(await replica.agents.get({ agentId: "on_call" })).toMatchObject({ status: "idle" });
    expect(await replica.agents.get({ agentId: "gone" })).toMatchObject({ status: "exhausted" });
    await until("the recovery", async () => (await replica.agents.get({ agentId: "billed" })).status === "idle");
  } finally {
    await client.end();
  }
});

/** The columns that the row had in 0.1, as text. */
function oldColumns(row: Readonly<Record<string, unknown>>, old: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify(Object.fromEntries(Object.keys(old).map((column) => [column, row[column]])));
}
