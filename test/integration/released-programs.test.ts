import { existsSync, readFileSync } from "node:fs";
import pg from "pg";
import { expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { missingOn, readSurface, type SchemaSurface } from "../support/schema-surface.ts";

/** Written by scripts/record-release.ts at a release. No release before 0.2 has it: 0.1 cannot run beside a newer one. */
const RECORD = new URL("../../released/schema.json", import.meta.url);

async function openScene() {
  await using undo = new AsyncDisposableStack();
  const { url } = undo.use(await createTestDatabase());
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  undo.defer(() => client.end());
  const everything = undo.move();
  return { client, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

test("the migrated schema has all that the last release uses", async () => {
  await using scene = await openScene();
  const released: SchemaSurface = existsSync(RECORD)
    ? JSON.parse(readFileSync(RECORD, "utf8"))
    : await readSurface(scene.client);
  expect(Object.keys(released.statements).length).toBeGreaterThan(20);
  expect(Object.keys(released.parts).length).toBeGreaterThan(50);
  expect(await missingOn(scene.client, released)).toEqual([]);
});

test.each([
  [
    "a dropped column",
    "ALTER TABLE request_ids DROP COLUMN fingerprint",
    [
      "column request_ids.fingerprint is gone",
      /^the statement read-answers fails: column .*fingerprint does not exist$/,
    ],
  ],
  [
    "a function with another signature",
    "ALTER FUNCTION take_counter(bigint) RENAME TO take_counter_of_next",
    [
      "function take_counter(bigint) is gone",
      /^the statement take-counter fails: function take_counter\(.*\) does not exist$/,
    ],
  ],
  [
    "another type of a column",
    "ALTER TABLE claw_incidents ALTER COLUMN incident_id TYPE varchar(40)",
    ["column claw_incidents.incident_id is character varying(40) instead of text"],
  ],
  [
    "a dropped attribute",
    "ALTER TYPE agent_change DROP ATTRIBUTE not_before CASCADE",
    ["attribute agent_change.not_before is gone"],
  ],
])("finds %s of a later migration", async (_, change, expected) => {
  await using scene = await openScene();
  const released = await readSurface(scene.client);
  await scene.client.query(change);
  const missing = await missingOn(scene.client, released);
  expect(missing).toEqual(expected.map((text) => (typeof text === "string" ? text : expect.stringMatching(text))));
});

test("allows a migration that only adds", async () => {
  await using scene = await openScene();
  const released = await readSurface(scene.client);
  await scene.client.query(
    `ALTER TABLE agents ADD COLUMN added text;
     ALTER TYPE agent_change ADD ATTRIBUTE added text;
     CREATE FUNCTION take_counter(seen bigint, added text) RETURNS bigint LANGUAGE sql RETURN 1;`,
  );
  expect(await missingOn(scene.client, released)).toEqual([]);
});
