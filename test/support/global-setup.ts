import { randomBytes } from "node:crypto";
import { chmod, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../packages/embedded-postgres/src/embedded-postgres.ts";
import { isAlive } from "../../packages/embedded-postgres/src/postmaster-file.ts";
import { migrate } from "../../src/storage/migrations.ts";
import { administer, databaseUrl } from "./cluster.ts";
import { dropDatabases } from "./drop-databases.ts";
import { postgresIn } from "./left-behind.ts";
import { ownDatabases, temporaryFolder } from "./owned-process.ts";
import { until } from "./until.ts";

/**
 * Before the first test file: one PostgreSQL for the run, with the migrated template. It is the embedded one in
 * a folder of its own, or the one that TEST_DATABASE_URL names. @returns a function that removes all of it
 * after the last file
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await using undo = new AsyncDisposableStack();
  const { TEST_DATABASE_URL } = process.env;
  const adminUrl = TEST_DATABASE_URL || (await startCluster(undo));

  const prefix = `hf_test_${randomBytes(4).toString("hex")}_`;
  const template = `${prefix}template`;
  if (TEST_DATABASE_URL) ownDatabases(adminUrl, prefix);
  undo.defer(() => dropDatabases(adminUrl, prefix));
  await administer(adminUrl, `CREATE DATABASE ${template} TEMPLATE template0`);
  await migrate(databaseUrl(adminUrl, template));
  await administer(adminUrl, `ALTER DATABASE ${template} ALLOW_CONNECTIONS false`);

  project.provide("cluster", { adminUrl, prefix, template });
  const everything = undo.move();
  return () => everything.disposeAsync();
}

async function startCluster(undo: AsyncDisposableStack): Promise<string> {
  await removeLeftFolders();
  const dataDir = await temporaryFolder("test-cluster");
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  // Root runs PostgreSQL as another account, which has to enter the folder.
  await chmod(dataDir, 0o711);
  const postgres = await startEmbeddedPostgres({
    dataDir,
    log: { info() {}, warn() {} },
    // The data may be lost in a power failure.
    settings: { fsync: "off", full_page_writes: "off", max_connections: "300" },
  });
  undo.use(postgres);
  return postgres.connectionString;
}

/** The remains of runs whose owner was killed, too, for example by a power failure. */
async function removeLeftFolders(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const [, pid] = /^harborforge-[a-z-]+-(\d+)-[\da-f]{12}$/.exec(name) ?? [];
    if (pid === undefined || isAlive(Number(pid))) continue;
    const path = join(tmpdir(), name);
    try {
      for (const server of await postgresIn(path)) process.kill(server, "SIGQUIT");
      await until(`PostgreSQL in ${path} is gone`, async () => (await postgresIn(path)).length === 0);
      await rm(path, { recursive: true, force: true });
    } catch {
      // It belongs to another account, or another run removes it, too.
    }
  }
}
