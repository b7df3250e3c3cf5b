import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { migrate } from "../../src/storage/migrate.ts";
import { administer, databaseUrl } from "./cluster.ts";

const run = promisify(execFile);

/** A database as it was, in one moment. */
export interface Dump extends AsyncDisposable {
  /** Into a database that exists and is empty. */
  restore(url: string): Promise<void>;
}

/**
 * Dumps a database with `pg_dump`, where there is one that is not older than the server; without it by reading all rows and
 * writing them into a database that was migrated anew, which leaves the same: same rows, written by other transactions.
 */
export async function dump(url: string): Promise<Dump> {
  return (await hasPgDump(url)) ? await dumpByProgram(url) : await dumpByRows(url);
}

/** Which of the two ways `dump` goes. */
export async function hasPgDump(url: string): Promise<boolean> {
  const { stdout } = await run("pg_dump", ["--version"]).catch(() => ({ stdout: "" }));
  const program = Number(/\(PostgreSQL\) (\d+)/.exec(stdout)?.[1] ?? 0);
  const [{ version = 0 } = {}] = await rowsOf<{ version: number }>(
    url,
    "SELECT current_setting('server_version_num')::integer / 10000 AS version",
  );
  return program >= version;
}

async function dumpByProgram(url: string): Promise<Dump> {
  const folder = await mkdtemp(join(tmpdir(), "harborforge-dump-"));
  const file = join(folder, "dump");
  await run("pg_dump", ["--format=custom", `--file=${file}`, url]);
  return {
    restore: async (to) => void (await run("pg_restore", ["--exit-on-error", `--dbname=${to}`, file])),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

interface Table {
  readonly name: string;
  readonly rows: string;
}

async function dumpByRows(url: string): Promise<Dump> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    // The partitions with their parent; parents before those that refer to them.
    const { rows: named } = await client.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
       AND relname NOT LIKE 'schema_migrations%' ORDER BY relname = 'agent_liveness', relname = 'agents', relname`,
    );
    const tables: Table[] = [];
    for (const { name } of named) {
      const { rows } = await client.query<{ rows: string }>(
        `SELECT coalesce(jsonb_agg(t), '[]')::text AS rows FROM ${name} t`,
      );
      tables.push({ name, rows: rows[0]?.rows ?? "[]" });
    }
    const { rows: partitions } = await client.query<{ first: string }>(
      `SELECT substring(relname FROM '\\d+$') AS first FROM pg_inherits JOIN pg_class p ON p.oid = inhrelid
       WHERE inhparent = 'agent_transitions'::regclass ORDER BY 1`,
    );
    const { rows: sequences } = await client.query<{ sequencename: string; last_value: string | null }>(
      "SELECT sequencename, last_value::text FROM pg_sequences WHERE schemaname = 'public' AND sequencename NOT LIKE 'schema_migrations%'",
    );
    await client.query("COMMIT");
    return {
      async restore(to) {
        await migrate(to);
        const statements = [
          "BEGIN",
          ...partitions.map(({ first }) => `SELECT add_transition_partitions(${first})`),
          `TRUNCATE ${tables.map(({ name }) => name).join()}`,
          ...tables.map(
            ({ name, rows }) =>
              `INSERT INTO ${name} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::${name}, ${pg.escapeLiteral(rows)}::jsonb)`,
          ),
          ...sequences.flatMap(({ sequencename, last_value }) =>
            last_value === null ? [] : [`SELECT setval('${sequencename}', ${last_value})`],
          ),
          "COMMIT",
        ];
        await administer(to, ...statements);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  } finally {
    await client.end();
  }
}

/** Ends all sessions of a database. */
export async function disconnectAll(adminUrl: string, name: string): Promise<void> {
  await administer(
    adminUrl,
    `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ${pg.escapeLiteral(name)} AND pid <> pg_backend_pid()`,
  );
}

/** Another database with the same content; whoever is connected to the first is cut off. */
export async function copyOf(adminUrl: string, name: string, copy: string): Promise<string> {
  await withoutSessions(adminUrl, name, `CREATE DATABASE ${copy} TEMPLATE ${name} STRATEGY wal_log`);
  return databaseUrl(adminUrl, copy);
}

/** Puts the database `from` in the place of `name`, whose content is kept under `kept`. */
export async function swapIn(adminUrl: string, from: string, name: string, kept: string): Promise<void> {
  await withoutSessions(adminUrl, name, `ALTER DATABASE ${name} RENAME TO ${kept}`);
  await withoutSessions(adminUrl, from, `ALTER DATABASE ${from} RENAME TO ${name}`);
}

/** A statement that wants nobody to be connected to a database. Who is comes back at any moment: so again, until it works. */
async function withoutSessions(adminUrl: string, name: string, statement: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    await administer(adminUrl, `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    try {
      await disconnectAll(adminUrl, name);
      await administer(adminUrl, statement);
      return;
    } catch (error) {
      if (attempt === 50 || !(error instanceof pg.DatabaseError) || error.code !== "55006") throw error;
    } finally {
      const renamed = /RENAME TO (\w+)$/.exec(statement)?.[1];
      for (const one of renamed === undefined ? [name] : [name, renamed]) {
        await administer(adminUrl, `ALTER DATABASE ${one} ALLOW_CONNECTIONS true`).catch(() => undefined);
      }
    }
  }
}

export async function rowsOf<Row extends object>(
  url: string,
  sql: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(sql, [...values])).rows;
  } finally {
    await client.end();
  }
}
