// Sends random, mutated and hostile inputs to both listeners of a real service, and checks the responses. See --help.
import { chmod, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startEmbeddedPostgres } from "@harborforge/embedded-postgres";
import { migrate } from "../src/storage/migrations.ts";
import { createFuzzCredentials } from "../test/fuzz/credentials.ts";
import { startFuzzedService } from "../test/fuzz/fuzzed-service.ts";
import { faultsIn, fuzzReport, secretsIn } from "../test/fuzz/report.ts";
import { runFuzz } from "../test/fuzz/run-fuzz.ts";
import { TroubledDatabase } from "../test/fuzz/troubled-database.ts";
import { temporaryFolder } from "../test/support/owned-process.ts";

const HELP = `npm run fuzz -- [options]
  --seed N       determines the inputs (default: the time)
  --inputs N     the number of inputs (default 100000)
  --minutes N    the maximum duration (default 15)
  --database     while the database stalls, rejects and breaks connections, and runs out of space
  --credentials  to a service that requires credentials: by callers of each role, and without valid credentials
Exit codes: 0 no fault found, 1 a fault found, 2 the run failed to start.`;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    inputs: { type: "string", default: "100000" },
    minutes: { type: "string", default: "15" },
    credentials: { type: "boolean", default: false },
    database: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

/** The timeout of an orderly stop after a signal, in milliseconds. */
const STOP_MS = 10_000;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    stop.abort();
    setTimeout(() => process.exit(1), STOP_MS).unref();
  });
}

if (values.help) console.log(HELP);
else process.exitCode = await main();

async function main(): Promise<number> {
  const seed = values.seed === undefined ? Date.now() % 1_000_000_007 : Number(values.seed);
  console.log(`seed ${seed}`);
  const folder = await temporaryFolder("fuzz");
  try {
    // For root, PostgreSQL runs under another account, which needs access to the folder.
    await chmod(folder, 0o711);
    const postgres = await startEmbeddedPostgres({ dataDir: join(folder, "data"), log: { info() {}, warn() {} } });
    try {
      const credentials = values.credentials
        ? await createFuzzCredentials(await migrated(postgres.connectionString), folder)
        : undefined;
      await using database = values.database ? await TroubledDatabase.open(postgres.connectionString) : undefined;
      await using service = await startFuzzedService(database?.url ?? postgres.connectionString, credentials?.env);
      const result = await runFuzz({
        seed,
        inputs: Number(values.inputs),
        forMs: Number(values.minutes) * 60_000,
        listeners: service.listeners,
        pid: service.pid,
        credentials,
        database,
        onLine: progress(),
        signal: stop.signal,
      });
      const faults = [...faultsIn(service.log), ...secretsIn(service.log, credentials?.secrets)];
      for (const line of fuzzReport(result)) console.log(line);
      for (const [trouble, times] of database?.troubles ?? []) console.log(`the database ${trouble}: ${times} times`);
      console.log(`${faults.length} faults in the log`);
      for (const fault of faults.slice(0, 10)) console.log(`  ${fault}`);
      return result.violations.length === 0 && faults.length === 0 ? 0 : 1;
    } finally {
      await postgres.stop();
    }
  } catch (error) {
    console.error(error);
    return 2;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function migrated(databaseUrl: string): Promise<string> {
  await migrate(databaseUrl);
  return databaseUrl;
}

/** Prints at most one line in five seconds. */
function progress(): (line: string) => void {
  let saidAt = 0;
  return (line) => {
    const now = performance.now();
    if (now - saidAt < 5_000) return;
    saidAt = now;
    console.log(`  ${line}`);
  };
}
