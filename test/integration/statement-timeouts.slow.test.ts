import { expect, test } from "vitest";
import { openDatabase } from "../../src/storage/database.ts";
import { createTestDatabase } from "../support/cluster.ts";

/** The milliseconds for which a statement may run, wait for a lock, and leave a transaction idle. */
const LIMITS = { statement_timeout: 5_000, lock_timeout: 2_000, idle_in_transaction_session_timeout: 2_000 };
const NAMES = Object.keys(LIMITS);
const READ = "SELECT name, setting::integer AS ms FROM pg_settings WHERE name = ANY ";

test("statements on every connection have a time limit, and the server cancels longer ones", async () => {
  await using database = await createTestDatabase();
  const opened = openDatabase({ url: database.url, onIdleError: () => undefined });
  try {
    const listener = opened.newClient("listen", {});
    await listener.connect();
    const read = async (query: (sql: string, values: [string[]]) => Promise<{ rows: object[] }>): Promise<unknown> =>
      (await query(`${READ} ($1)`, [NAMES])).rows;
    const wanted = expect.arrayContaining(Object.entries(LIMITS).map(([name, ms]) => ({ name, ms })));
    for (const client of [opened.beats, opened.commits, opened.feed, listener])
      expect(await read((sql, values) => client.query(sql, values))).toEqual(wanted);
    const api: { rows: object[] } = await opened.knex.raw(`${READ} (?)`, [NAMES]);
    expect(api.rows).toEqual(wanted);
    await listener.end();

    const cancelled = { code: "57014" };
    await Promise.all([
      expect(opened.feed.query("SELECT pg_sleep(60)")).rejects.toMatchObject(cancelled),
      expect(opened.knex.raw("SELECT pg_sleep(60)")).rejects.toMatchObject(cancelled),
    ]);
  } finally {
    await opened.close();
  }
});
