import { randomBytes } from "node:crypto";
import { Client } from "pg";
import { inject } from "vitest";

/** What the global setup tells the test files of the PostgreSQL of this run. */
export interface TestCluster {
  /** A database to connect to for creating and dropping others. */
  readonly adminUrl: string;
  /** All databases of this run begin with it, so that the end of the run can drop what a test left. */
  readonly prefix: string;
  /** The migrated database that `createTestDatabase` clones. Nobody can connect to it: cloning needs it quiet. */
  readonly template: string;
}

declare module "vitest" {
  interface ProvidedContext {
    cluster: TestCluster;
  }
}

export interface TestDatabase extends AsyncDisposable {
  /** `postgres://…`, of a user who may do everything. */
  readonly url: string;
  /** Cuts off whoever is still connected. May be called again. */
  drop(): Promise<void>;
}

/** A migrated database of the caller's own; takes some tens of milliseconds. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const database = await createDatabase(inject("cluster").template);
  // A copy of a database is another history, whose revisions begin with a gap. A test's database begins without one.
  await administer(database.url, "SELECT note_history()");
  return database;
}

/** A database of the caller's own in which nothing was migrated. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return await createDatabase("template0");
}

async function createDatabase(template: string): Promise<TestDatabase> {
  const { adminUrl, prefix } = inject("cluster");
  const name = `${prefix}${randomBytes(6).toString("hex")}`;
  // wal_log: the other strategy has two checkpoints a clone, which all who clone at the same time wait for.
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

/** Runs statements one after the other, each by itself, as creating a database wants it. */
export async function administer(url: string, ...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 20_000 });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
