import { createAgentDirectory } from "../../src/storage/agent-directory.ts";
import { Committer } from "../../src/storage/committer.ts";
import { openDatabase } from "../../src/storage/database.ts";
import { createUserDirectory } from "../../src/storage/user-directory.ts";
import { createWatching, type WatchingOptions } from "../../src/watch/watching.ts";
import { FIRST_LEASE_MS } from "./storage.ts";

export interface WatchingReplicaOptions extends Partial<WatchingOptions> {
  /** Whether this replica notifies any replica, itself included, of its commits. */
  readonly notifies?: boolean;
  readonly replica?: number;
}

/** The part of a replica that changes agents and the part that watches them, on a database of the test's. */
export async function startWatchingReplica(url: string, options: WatchingReplicaOptions = {}) {
  const { notifies = true, replica = 1, ...limits } = options;
  const database = openDatabase({ url, onIdleError: () => undefined });
  const watching = createWatching({
    database,
    log: { info: () => undefined, warn: () => undefined },
    ...limits,
  });
  const committer = new Committer(database, replica, () => {
    if (notifies) watching.notifyCommitted();
  });
  const directory = { database, committer, firstLeaseMs: FIRST_LEASE_MS, onLease: () => undefined };
  await watching.start();
  return {
    database,
    watching,
    watches: watching.watches,
    committer,
    agents: createAgentDirectory(directory),
    users: createUserDirectory(directory),
    async query<Row extends object>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
      return (await database.commits.query<Row>(sql, [...values])).rows;
    },
    async [Symbol.asyncDispose]() {
      await committer.close();
      await watching.close();
      await database.close();
    },
  };
}

export type WatchingReplica = Awaited<ReturnType<typeof startWatchingReplica>>;
