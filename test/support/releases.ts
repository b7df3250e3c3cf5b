import { cp, glob, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "./owned-process.ts";
import { checkout } from "./program.ts";

/** The cause that the next release stores where the current one stores `report`. */
export const CAUSE_OF_NEXT = "report_of_next";

/** This checkout as a release, and a release after it. Each folder has a program: `node src/main.ts`. */
export interface Releases extends AsyncDisposable {
  readonly current: string;
  readonly next: string;
}

const PARTS = ["src", "common", "gen", "migrations", "packages", "package.json"];

/**
 * Copies this checkout twice: as a release, and as the release after it. The next release has a migration that adds a column
 * and an attribute, and a cause that the current release does not know. It commits by a function of its own, beside the one
 * of the current release, as docs/upgrading.md prescribes.
 */
export async function makeReleases(): Promise<Releases> {
  const top = await temporaryFolder("releases");
  const make = async (name: string, version: string): Promise<string> => {
    const folder = join(top, name);
    await mkdir(folder);
    for (const part of PARTS) await cp(join(checkout, part), join(folder, part), { recursive: true });
    await symlink(join(checkout, "node_modules"), join(folder, "node_modules"));
    await change(join(folder, "package.json"), /"version": ".*?"/, `"version": "${version}"`);
    return folder;
  };
  const current = await make("current", "0.2.0");
  const next = await make("next", "0.3.0");
  await writeFile(join(next, "migrations/9001_of_the_next_release.sql"), MIGRATION);
  let changed = 0;
  for await (const file of glob("src/storage/queries/*.sql", { cwd: next })) {
    const sql = await readFile(join(next, file), "utf8");
    if (!/\bcommit_changes\(/.test(sql)) continue;
    await writeFile(join(next, file), sql.replace(/\bcommit_changes\(/g, "commit_changes_of_next("));
    changed += 1;
  }
  if (changed === 0) throw new Error("no query calls commit_changes");
  await change(join(next, "common/contract/enum-names.ts"), /( {2}"heartbeat",\n)/, `$1  "${CAUSE_OF_NEXT}",\n`);
  await change(join(next, "common/contract/enum-values.ts"), /( {2}heartbeat: 9,\n)/, `$1  ${CAUSE_OF_NEXT}: 99,\n`);
  return { current, next, [Symbol.asyncDispose]: () => rm(top, { recursive: true, force: true }) };
}

async function change(file: string, from: RegExp, to: string): Promise<void> {
  const text = await readFile(file, "utf8");
  if (!from.test(text)) throw new Error(`${file} has no ${from}`);
  await writeFile(file, text.replace(from, to));
}

const MIGRATION = `
SET LOCAL lock_timeout = '5s';
UPDATE schema_compatibility SET compatible_from = '0.2.0';

ALTER TABLE agents ADD COLUMN of_next text NOT NULL DEFAULT 'added';
ALTER TABLE agent_liveness ADD COLUMN of_next text;
ALTER TYPE agent_change ADD ATTRIBUTE of_next text;

DO $$
DECLARE
  known text := pg_get_constraintdef((SELECT oid FROM pg_constraint
    WHERE conname = 'agent_transitions_cause_known' AND conrelid = 'agent_transitions'::regclass));
BEGIN
  ALTER TABLE agent_transitions DROP CONSTRAINT agent_transitions_cause_known;
  EXECUTE 'ALTER TABLE agent_transitions ADD CONSTRAINT agent_transitions_cause_known '
    || replace(known, '''created''', '''${CAUSE_OF_NEXT}''::text, ''created''');
  EXECUTE format(
    'CREATE FUNCTION commit_changes_of_next(replica integer, changes jsonb) RETURNS %s LANGUAGE sql VOLATILE SET search_path = %I, pg_temp AS %L',
    pg_get_function_result('commit_changes(integer, jsonb)'::regprocedure), current_schema(),
    'SELECT * FROM commit_changes(replica, (SELECT jsonb_agg(CASE WHEN c ->> ''cause'' = ''report''
       THEN c || ''{"cause": "${CAUSE_OF_NEXT}", "of_next": "new"}'' ELSE c END) FROM jsonb_array_elements(changes) c))'
  );
END
$$;
`;
