import { randomBytes } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import type { TestProject } from "vitest/node";
import { dataFolder } from "../../src/storage/embedded/data-folder.ts";
import { startEmbeddedPostgres } from "../../src/storage/embedded/embedded-postgres.ts";
import { livingPostmaster, stopPostmaster } from "../../src/storage/embedded/postmaster.ts";
import { isAlive } from "../../src/storage/embedded/postmaster-file.ts";
import { migrate } from "../../src/storage/migrate.ts";
import { administer, databaseUrl } from "./cluster.ts";

/** Followed by the process id of the run, so that a later one knows what a killed one left. */
const folderPrefix = "harborforge-test-cluster-";

/**
 * Before the first test file: one PostgreSQL for the run, the embedded one in a folder of its own or, if TEST_DATABASE_URL
 * names it, one that is there, and in it the migrated template. What it returns undoes it all after the last.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await using undo = new AsyncDisposableStack();
  const { TEST_DATABASE_URL } = process.env;
  const adminUrl = TEST_DATABASE_URL || (await startCluster(undo));

  const prefix = `hf_test_${randomBytes(4).toString("hex")}_`;
  const template = `${prefix}template`;
  undo.defer(() => dropDatabases(adminUrl, prefix));
  await administer(adminUrl, `CREATE DATABASE ${template} TEMPLATE template0`);
  await migrate(databaseUrl(adminUrl, template));
  await administer(adminUrl, `ALTER DATABASE ${template} ALLOW_CONNECTIONS false`);

  project.provide("cluster", { adminUrl, prefix, template });
  const everything = undo.move();
  return () => everything.disposeAsync();
}

async function startCluster(undo: AsyncDisposableStack): Promise<string> {
  await removeLeftClusters();
  const dataDir = await mkdtemp(join(tmpdir(), `${folderPrefix}${process.pid}-`));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  // Root runs PostgreSQL by another account, which has to pass through.
  await chmod(dataDir, 0o711);
  const postgres = await startEmbeddedPostgres({
    dataDir,
    log: { info() {}, warn() {} },
    // Losing it all in a power failure is no loss.
    settings: { fsync: "off", full_page_writes: "off", max_connections: "300" },
  });
  undo.use(postgres);
  // An interrupted run ends without undoing anything; what can be done then is what needs no waiting for events.
  const interrupted = () => abandon(dataDir, postgres.pid);
  process.once("exit", interrupted);
  undo.defer(() => void process.off("exit", interrupted));
  return postgres.connectionString;
}

function abandon(dataDir: string, pid: number): void {
  process.kill(pid, "SIGQUIT");
  const deadline = Date.now() + 6_000;
  const clock = new Int32Array(new SharedArrayBuffer(4));
  // PostgreSQL takes the file away as the last thing it does.
  while (existsSync(join(dataFolder(dataDir).cluster, "postmaster.pid")) && Date.now() < deadline) {
    Atomics.wait(clock, 0, 0, 10);
  }
  rmSync(dataDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}

/** A run that was killed could not clean up after itself. */
async function removeLeftClusters(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = name.startsWith(folderPrefix) ? Number.parseInt(name.slice(folderPrefix.length), 10) : Number.NaN;
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    const folder = dataFolder(join(tmpdir(), name));
    try {
      const postmaster = await livingPostmaster(folder.cluster);
      if (postmaster) await stopPostmaster(folder.cluster, postmaster);
      await rm(folder.path, { recursive: true, force: true });
    } catch {
      // Another user's, or another run is removing it too.
    }
  }
}

async function dropDatabases(adminUrl: string, prefix: string): Promise<void> {
  const client = new Client({ connectionString: adminUrl, connectionTimeoutMillis: 20_000 });
  await client.connect();
  try {
    const { rows } = await client.query<{ datname: string }>(
      "SELECT datname FROM pg_database WHERE starts_with(datname, $1)",
      [prefix],
    );
    for (const { datname } of rows) await client.query(`DROP DATABASE ${datname} WITH (FORCE)`);
  } finally {
    await client.end();
  }
}
