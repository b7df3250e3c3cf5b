import type { DatabaseChoice } from "../config.ts";
import { defaultDataDir } from "../storage/embedded/data-folder.ts";
import { type EmbeddedPostgresLog, startEmbeddedPostgres } from "../storage/embedded/embedded-postgres.ts";

export interface DatabaseInUse {
  readonly url: string;
  /** Where its data is, where the database is the embedded one. */
  readonly dataDir: string | undefined;
  /** Fulfilled if the embedded server ends by itself. */
  readonly ended: Promise<void>;
}

/** Does some work with the database that was chosen; the embedded one runs as long as the work does. */
export async function withEmbeddedPostgres<Result>(
  choice: DatabaseChoice,
  env: Readonly<Record<string, string | undefined>>,
  log: EmbeddedPostgresLog,
  work: (database: DatabaseInUse) => Promise<Result>,
  signal?: AbortSignal,
): Promise<Result> {
  if (choice.kind === "external") {
    return await work({ url: choice.url, dataDir: undefined, ended: new Promise(() => undefined) });
  }
  const postgres = await startEmbeddedPostgres({
    dataDir: choice.dataDir ?? defaultDataDir(env),
    log,
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    return await work({ url: postgres.connectionString, dataDir: postgres.dataDir, ended: postgres.ended });
  } finally {
    await postgres.stop();
  }
}
