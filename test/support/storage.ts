import type { Agent } from "../../src/domain/agent.ts";
import type { Mutation } from "../../src/domain/directories.ts";
import { createAgentDirectory } from "../../src/storage/agent-directory.ts";
import { Committer } from "../../src/storage/committer.ts";
import { type Database, openDatabase } from "../../src/storage/database.ts";
import { createUserDirectory } from "../../src/storage/user-directory.ts";
import { createTestDatabase } from "./cluster.ts";

export const FIRST_LEASE_MS = 60_000;

/** The storage of one replica, opened on `url`. */
export function openStorage(url: string, replica = 1) {
  const database: Database = openDatabase({ url, onIdleError: () => undefined });
  const commits: number[] = [];
  const leases: Agent[] = [];
  const committer = new Committer(database, replica, () => commits.push(performance.now()));
  const options = { database, committer, firstLeaseMs: FIRST_LEASE_MS, onLease: (agent: Agent) => leases.push(agent) };
  return {
    database,
    committer,
    users: createUserDirectory(options),
    agents: createAgentDirectory(options),
    /** One entry for each group that assigned a revision. */
    commits,
    /** The agents that this replica was asked to watch. */
    leases,
    /** A query of the test's own. */
    async query<Row extends object>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
      const { rows } = await database.feed.query<Row>(sql, [...values]);
      return rows;
    },
    async [Symbol.asyncDispose]() {
      await committer.close();
      await database.close();
    },
  };
}

export type Storage = ReturnType<typeof openStorage>;

/** A database of the caller's own and the storage of one replica on it. */
export async function createTestStorage() {
  await using undo = new AsyncDisposableStack();
  const testDatabase = undo.use(await createTestDatabase());
  const storage = undo.use(openStorage(testDatabase.url));
  const everything = undo.move();
  return { ...storage, url: testDatabase.url, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

/**
 * A change by a service; with `id` it can be repeated, and `content` distinguishes it from others with the same
 * id.
 */
export function by(id?: string, content = "content", principal = "service:test"): Mutation {
  return { actor: principal, request: id === undefined ? undefined : { principal, id, fingerprint: content } };
}

/** For `rejects.toMatchObject`. */
export function refused(reason: string, metadata: Record<string, string> = {}) {
  return { name: "Refusal", reason, metadata };
}
