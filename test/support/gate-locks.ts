import { Client } from "pg";
import { namedQuery } from "../../src/storage/queries.ts";
import { until } from "./until.ts";

/**
 * A connection of the test that takes locks which replicas wait for. Waiters at a row proceed in order, so the
 * test can force the order of a race inside PostgreSQL.
 */
export class RowLocks implements AsyncDisposable {
  readonly #client: Client;

  private constructor(client: Client) {
    this.#client = client;
  }

  static async open(url: string): Promise<RowLocks> {
    const client = new Client({ connectionString: url });
    await client.connect();
    return new RowLocks(client);
  }

  /** Takes the lock of an agent's liveness row, in a transaction that `commit` ends. */
  async takeLiveness(agentId: string): Promise<void> {
    await this.#client.query("BEGIN");
    await this.#client.query(
      "SELECT FROM agent_liveness WHERE agent = (SELECT id FROM agents WHERE agent_id = $1) FOR UPDATE",
      [agentId],
    );
  }

  /** Locks the counter: every commit of a transition stops there, with all its other locks taken. */
  async takeCounter(): Promise<void> {
    await this.#client.query("BEGIN");
    await this.#client.query("SELECT FROM revision_counter FOR UPDATE");
  }

  /** Runs a function within the transaction. */
  async write(sql: string, ...values: readonly unknown[]): Promise<void> {
    await this.#client.query(sql, [...values]);
  }

  /** Resolves when so many statements of this name wait for a lock. */
  async waiting(name: string, count = 1): Promise<void> {
    const text = namedQuery(name).text.slice(0, 100);
    await until(`${count} × ${name} waits for a lock`, async () => {
      // A transaction sees the activity as of its first look.
      await this.#client.query("SELECT pg_stat_clear_snapshot()");
      const { rows } = await this.#client.query<{ count: string }>(
        `SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)`,
        [text],
      );
      return Number(rows[0]?.count) === count;
    });
  }

  async commit(): Promise<void> {
    await this.#client.query("COMMIT");
  }

  /** Releases the locks of a failed test; without a transaction it does nothing. */
  async rollback(): Promise<void> {
    await this.#client.query("ROLLBACK");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end();
  }
}
