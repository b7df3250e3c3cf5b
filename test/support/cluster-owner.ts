/**
 * A program that owns an embedded PostgreSQL, for tests that kill it: `cluster-owner.ts DATA_DIR`. It prints
 * events as lines of JSON on standard output, and stops when its standard input ends or at SIGTERM.
 */
import { once } from "node:events";
import { startEmbeddedPostgres } from "../../packages/embedded-postgres/src/embedded-postgres.ts";
import { EmbeddedPostgresError } from "../../packages/embedded-postgres/src/embedded-postgres-error.ts";

function say(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const abort = new AbortController();
process.once("SIGTERM", () => abort.abort());
process.stdin.once("end", () => abort.abort()).resume();

try {
  const postgres = await startEmbeddedPostgres({
    dataDir: process.argv[2] ?? "",
    log: { info() {}, warn() {} },
    settings: { fsync: "off" },
    signal: abort.signal,
  });
  const { connectionString, dataDir, version, adopted, pid } = postgres;
  say({ event: "serving", connectionString, dataDir, version, adopted, pid });
  void postgres.ended.then(() => say({ event: "ended" }));
  if (!abort.signal.aborted) await once(abort.signal, "abort");
  await postgres.stop();
  say({ event: "stopped" });
} catch (error) {
  if (error instanceof EmbeddedPostgresError) say({ event: "refused", reason: error.reason, message: error.message });
  else if (abort.signal.aborted) say({ event: "aborted" });
  else throw error;
  process.exitCode = 1;
}
process.stdin.destroy();
