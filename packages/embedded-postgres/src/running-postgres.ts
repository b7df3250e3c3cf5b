import { realpath } from "node:fs/promises";
import { resolve } from "node:path";
import { databaseUser } from "./cluster-creation.ts";
import { dataFolder, readIfThere } from "./data-folder.ts";
import { databaseName } from "./embedded-postgres.ts";
import { errorCode } from "./embedded-postgres-error.ts";
import { livingPostmaster } from "./postmaster.ts";

/**
 * The address of the server of a data folder that another process serves. For commands that work beside the service and may read the
 * folder. Undefined if no server runs.
 */
export async function runningPostgres(
  dataDir: string,
): Promise<{ readonly connectionString: string; readonly dataDir: string } | undefined> {
  const path = await realpath(resolve(dataDir)).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  });
  if (path === undefined) return undefined;
  const folder = dataFolder(path);
  const postmaster = await livingPostmaster(folder.cluster);
  const password = (await readIfThere(folder.password))?.trim();
  if (postmaster === undefined || password === undefined || password === "") return undefined;
  const server = `127.0.0.1:${postmaster.port}`;
  return {
    connectionString: `postgres://${databaseUser}:${password}@${server}/${databaseName}?sslmode=disable`,
    dataDir: folder.path,
  };
}
