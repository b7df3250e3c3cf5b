import {
  defaultDataDir,
  EmbeddedPostgresError,
  type EmbeddedPostgresLog,
  runningPostgres,
  startEmbeddedPostgres,
} from "@harborforge/embedded-postgres";
import { type DatabaseChoice, readDatabaseUrl } from "../config/database.ts";

export interface DatabaseInUse {
  readonly url: string;
  /** The URL as it is now, if its user or password may change. */
  readonly latestUrl?: (() => Promise<string>) | undefined;
  /** The data folder of the embedded database. Undefined: another database. */
  readonly dataDir: string | undefined;
  /** Resolves if the embedded server stops by itself. */
  readonly ended: Promise<void>;
}

/** What a command does if a service uses the embedded database already: fail, or work beside it. */
export type WhenInUse = "refuse" | "share";

/** Runs `work` with the configured database. The embedded one runs as long as the work. */
export async function withEmbeddedPostgres<Result>(
  choice: DatabaseChoice,
  env: Readonly<Record<string, string | undefined>>,
  log: EmbeddedPostgresLog,
  work: (database: DatabaseInUse) => Promise<Result>,
  whenInUse: WhenInUse,
  signal?: AbortSignal,
): Promise<Result> {
  if (choice.kind === "external") {
    const { url, urlFile } = choice;
    const latestUrl = urlFile === undefined ? undefined : async () => readDatabaseUrl(urlFile);
    return await work({ url, latestUrl, dataDir: undefined, ended: new Promise(() => undefined) });
  }
  const dataDir = choice.dataDir ?? defaultDataDir(env);
  const postgres = await startEmbeddedPostgres({
    dataDir,
    log,
    ...(signal === undefined ? {} : { signal }),
  }).catch(async (error: unknown) => {
    const held = error instanceof EmbeddedPostgresError && error.reason === "IN_USE" && whenInUse === "share";
    const running = held ? await runningPostgres(dataDir) : undefined;
    if (running === undefined) throw error;
    return { ...running, ended: new Promise<void>(() => undefined), stop: () => Promise.resolve() };
  });
  try {
    return await work({ url: postgres.connectionString, dataDir: postgres.dataDir, ended: postgres.ended });
  } finally {
    await postgres.stop();
  }
}
