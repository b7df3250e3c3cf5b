import { randomBytes } from "node:crypto";
import { Client } from "pg";
import { inject } from "vitest";

/** The settings of this run's PostgreSQL, which the global setup passes to the test files. */
export interface TestCluster {
  /** A database to connect to for creating and dropping others. */
  readonly adminUrl: string;
  /** The prefix of all databases of this run, so that the end of the run can drop the remaining ones. */
  readonly prefix: string;
  /**
   * The migrated database that `createTestDatabase` clones. It accepts no connections: cloning requires that.
   */
  readonly template: string;
}

declare module "vitest" {
  interface ProvidedContext {
    cluster: TestCluster;
  }
}

export interface TestDatabase extends AsyncDisposable {
  /** `postgres://…`, of a superuser. */
  readonly url: string;
  /** Closes all open connections. May be called again. */
  drop(): Promise<void>;
}

/** A migrated database of the caller's own; takes some tens of milliseconds. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const database = await createDatabase(inject("cluster").template);
  // A copy of a database is another history, whose revisions begin with a gap. A test's database begins without
  // one.
  await administer(database.url, "SELECT note_history()");
  return database;
}

/** A database of the caller's own without migrations. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return await createDatabase("template0");
}

async function createDatabase(template: string): Promise<TestDatabase> {
  const { adminUrl, prefix } = inject("cluster");
  const name = `${prefix}${randomBytes(6).toString("hex")}`;
  // wal_log: the other strategy makes two checkpoints a clone, for which all concurrent clones wait.
  await administer(adminUrl, `CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY wal_log`);
  let dropped: Promise<void> | undefined;
  const drop = () => {
    dropped ??= administer(adminUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    return dropped;
  };
  return { url: databaseUrl(adminUrl, name), drop, [Symbol.asyncDispose]: drop };
}

export function databaseUrl(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

/** Runs statements one after the other, each in its own transaction, as CREATE DATABASE requires. */
export async function administer(url: string, ...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 20_000 });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
