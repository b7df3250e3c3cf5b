/**
 * Copies of databases, and databases that are swapped: how an older state of one returns in the same server.
 */
import pg from "pg";

export async function rowsOf<Row extends object>(
  url: string,
  sql: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 20_000 });
  await client.connect();
  try {
    return (await client.query<Row>(sql, [...values])).rows;
  } finally {
    await client.end();
  }
}

/** Creates another database with the same content. Closes all connections to the first. */
export async function copyDatabase(adminUrl: string, name: string, copy: string): Promise<void> {
  await closed(adminUrl, name);
  await rowsOf(adminUrl, `CREATE DATABASE ${copy} TEMPLATE ${name} STRATEGY wal_log`);
  await opened(adminUrl, name);
}

/** Renames the database `from` to `name`; the former `name` becomes `kept`. Closes all connections. */
export async function swapIn(adminUrl: string, from: string, name: string, kept: string): Promise<void> {
  await closed(adminUrl, name);
  await closed(adminUrl, from);
  await rowsOf(adminUrl, `ALTER DATABASE ${name} RENAME TO ${kept}`);
  await rowsOf(adminUrl, `ALTER DATABASE ${from} RENAME TO ${name}`);
  await opened(adminUrl, kept);
  await opened(adminUrl, name);
}

/** Copying and renaming require that no client is connected, and replicas reconnect at any moment. */
async function closed(adminUrl: string, name: string): Promise<void> {
  await rowsOf(adminUrl, `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await rowsOf(adminUrl, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", [name]);
}

async function opened(adminUrl: string, name: string): Promise<void> {
  await rowsOf(adminUrl, `ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
}
