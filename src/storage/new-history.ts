import { assertMigrated } from "./migrations.ts";
import { type DatabaseCommand, withDatabase } from "./single-client.ts";
import type { RevisionGap } from "./transition-log.ts";

/** Longer than any transaction of a replica locks the counter. */
const LOCK_TIMEOUT_MS = 10_000;

/**
 * Declares that the database was brought back to an older state in a way that the service cannot detect. New revisions
 * are larger than all that the lost history can have assigned, even if its clock was up to a day ahead. Replicas may be
 * running. Each call makes another revision gap.
 *
 * @throws UnusableDatabase; MigrationError if the database is not at the schema of this program
 */
export async function declareNewHistory(databaseUrl: string): Promise<RevisionGap> {
  const declare = async ({ client }: DatabaseCommand): Promise<RevisionGap> => {
    await assertMigrated(client);
    const { rows } = await client.query<RevisionGap>(
      'SELECT from_revision AS "from", to_revision AS "to" FROM declare_new_history()',
    );
    const [gap] = rows;
    if (gap === undefined) throw new TypeError("declare_new_history returned no row");
    return gap;
  };
  return await withDatabase(databaseUrl, declare, { lock_timeout: `${LOCK_TIMEOUT_MS}` });
}
