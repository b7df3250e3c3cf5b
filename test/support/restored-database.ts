import { rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { migrate } from "../../src/storage/migrations.ts";
import { administer } from "./cluster.ts";
import { rowsOf } from "./database-swap.ts";
import { execFile, temporaryFolder } from "./owned-process.ts";

const run = promisify(execFile);

/** The state of a database at one moment. */
export interface Dump extends AsyncDisposable {
  /** Into a database that exists and is empty. */
  restore(url: string): Promise<void>;
}

/**
 * Dumps a database with `pg_dump`, if there is one that is not older than the server. Otherwise it reads all
 * rows and writes them into a newly migrated database, with the same result: the same rows, written by other
 * transactions.
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
  const folder = await temporaryFolder("dump");
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
        // Running replicas read the tables meanwhile, in orders of their own.
        await administer(to, ...statements).catch(async (error: unknown) => {
          if (!(error instanceof pg.DatabaseError) || error.code !== "40P01") throw error;
          await administer(to, ...statements);
        });
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  } finally {
    await client.end();
  }
}
