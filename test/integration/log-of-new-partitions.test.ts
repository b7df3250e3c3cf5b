import pg from "pg";
import { expect, test } from "vitest";
import { columnTypes } from "../../src/storage/column-types.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { by, openStorage } from "../support/storage.ts";
import { until } from "../support/until.ts";

const GATE = 4_711;
const READER = "slow planner";

/**
 * The reader waits at the gate while its first statement is planned: the planner evaluates the index
 * restriction once a connection. By then it knows the existing partitions; the statement's snapshot is taken
 * after that.
 */
const BUILD_GATE = `
  CREATE FUNCTION pass_gate() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN
    IF current_setting('application_name') = '${READER}' THEN
      PERFORM pg_advisory_lock_shared(${GATE});
      PERFORM pg_advisory_unlock_shared(${GATE});
    END IF;
    RETURN 0;
  END $$;
  DO $$
  DECLARE
    partition regclass;
  BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'agent_transitions'::regclass LOOP
      EXECUTE format('CREATE INDEX ON %s (revision) WHERE revision > pass_gate()', partition);
    END LOOP;
  END $$`;

test("a read that was planned before a revision jump, and sees it, includes the transition right after it", async () => {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await createTestDatabase());
  const storage = stack.use(openStorage(url));
  const create = async (agentId: string) => {
    const agent = { agentId, clawIdentifier: "claw-a" };
    return await storage.users.create({ username: agentId, email: null, displayName: "", agent }, by());
  };
  await create("before");
  await storage.query(BUILD_GATE);
  const gatekeeper = new pg.Client({ connectionString: url });
  await gatekeeper.connect();
  stack.defer(() => gatekeeper.end());
  await gatekeeper.query("SELECT pg_advisory_lock($1)", [GATE]);

  const reader = new pg.Pool({
    connectionString: url,
    application_name: READER,
    options: "-c timezone=UTC",
    types: columnTypes,
  });
  stack.defer(() => reader.end());
  const log = new TransitionLog(reader);
  const position = await log.newest();
  const reading = log.read(position, 100);
  await until("the reading is being planned", async () => {
    const { rows } = await gatekeeper.query(
      "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'advisory'",
      [READER],
    );
    return rows.length === 1;
  });
  // Beyond the existing partitions.
  await new TransitionLog(storage.database.feed).beginNewHistory(position + 10_000_000n);
  const { agent } = await create("after");
  await gatekeeper.query("SELECT pg_advisory_unlock($1)", [GATE]);

  const page = await reading;
  expect(page.newest).toBe(agent?.revision);
  expect(page.gaps[0]?.from).toBe(position);
  expect(page.transitions.map(({ revision }) => revision)).toEqual([agent?.revision]);
});
