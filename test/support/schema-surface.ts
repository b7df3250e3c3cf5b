import { readdirSync, readFileSync } from "node:fs";
import type pg from "pg";

/** What a program uses of a schema: names by their meaning. A later schema must have each of them, unchanged. */
export interface SchemaSurface {
  /** The statements of the program, by name. */
  readonly statements: Readonly<Record<string, string>>;
  /** The results of functions by their signatures, the types of columns and attributes by their names. */
  readonly parts: Readonly<Record<string, string>>;
}

const QUERIES = new URL("../../src/storage/queries/", import.meta.url);

const READ_PARTS = `
  SELECT 'function ' || p.oid::regprocedure AS name, pg_get_function_result(p.oid) AS meaning
  FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace AND p.prorettype <> 'trigger'::regtype
  UNION ALL
  SELECT CASE c.relkind WHEN 'c' THEN 'attribute ' ELSE 'column ' END || c.relname || '.' || a.attname,
    format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c') AND NOT c.relispartition
    AND a.attnum > 0 AND NOT a.attisdropped
  ORDER BY 1`;

/** Of this checkout on a database that it has migrated. */
export async function readSurface(client: pg.Client): Promise<SchemaSurface> {
  const files = readdirSync(QUERIES).filter((file) => file.endsWith(".sql"));
  const statements = files.sort().map((file) => [file.slice(0, -4), readFileSync(new URL(file, QUERIES), "utf8")]);
  return { statements: Object.fromEntries(statements), parts: await readParts(client) };
}

async function readParts(client: pg.Client): Promise<Record<string, string>> {
  const { rows } = await client.query<{ name: string; meaning: string }>(READ_PARTS);
  return Object.fromEntries(rows.map(({ name, meaning }) => [name, meaning]));
}

/**
 * What a program would miss on a database, one sentence each. Changes nothing. It does not find a function that does something
 * else under the same signature, nor a check that rejects what the program writes: that takes a run of both programs.
 */
export async function missingOn(client: pg.Client, { statements, parts }: SchemaSurface): Promise<string[]> {
  const missing: string[] = [];
  const now = await readParts(client);
  for (const [name, meaning] of Object.entries(parts)) {
    if (now[name] === undefined) missing.push(`${name} is gone`);
    else if (now[name] !== meaning) missing.push(`${name} is ${now[name]} instead of ${meaning}`);
  }
  for (const [name, text] of Object.entries(statements)) {
    try {
      await client.query(`PREPARE of_a_release AS ${text}`);
      await client.query("DEALLOCATE of_a_release");
    } catch (error) {
      missing.push(`the statement ${name} fails: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return missing;
}
