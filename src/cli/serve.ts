import type { Logger } from "pino";
import { type Config, loadConfig, type SettingKey } from "../config.ts";
import { databaseLabel, formatAddress } from "../config-values.ts";
import { type Addresses, Server } from "../server.ts";
import { migrate } from "../storage/migrate.ts";
import { type DatabaseInUse, withEmbeddedPostgres } from "./embedded.ts";
import { EXIT_FAILED, EXIT_OK, explain } from "./failure.ts";
import { createLog } from "./log.ts";

/**
 * `serve`: runs a replica until SIGINT or SIGTERM, which drain it; a second one ends the drain at once.
 *
 * @returns the exit code
 */
export async function serveCommand(
  process: NodeJS.Process,
  flags: Readonly<Partial<Record<SettingKey, string>>>,
): Promise<number> {
  let label = "The database";
  const stopping = new AbortController();
  const hurrying = new AbortController();
  const onSignal = () => (stopping.signal.aborted ? hurrying : stopping).abort();
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    const config = loadConfig({ env: process.env, flags, isTerminal: process.stderr.isTTY });
    if (config.database.kind === "external") label = `The database ${databaseLabel(config.database.url)}`;
    const log = createLog(config, process.stderr);
    return await withEmbeddedPostgres(
      config.database,
      process.env,
      log,
      (database) =>
        run({ process, config, database, label, log, stopping: stopping.signal, hurrying: hurrying.signal }),
      stopping.signal,
    );
  } catch (error) {
    // Interrupted before it served: that is what was asked for.
    if (stopping.signal.aborted) return EXIT_OK;
    const { sentence, exitCode } = explain(error, label);
    process.stderr.write(`${sentence}\n`);
    return exitCode;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}

interface Run {
  readonly process: NodeJS.Process;
  readonly config: Config;
  readonly database: DatabaseInUse;
  readonly label: string;
  readonly log: Logger;
  readonly stopping: AbortSignal;
  readonly hurrying: AbortSignal;
}

async function run({ process, config, database, label, log, stopping, hurrying }: Run): Promise<number> {
  const applied = await migrate(database.url);
  if (applied.length > 0) log.info({ migrations: applied }, "migrated the database");
  const server = await Server.start({
    databaseUrl: database.url,
    grpcAddress: formatAddress(config.grpcAddress),
    httpAddress: formatAddress(config.httpAddress),
    pace: {
      shortestIntervalMs: config.heartbeatIntervalMs,
      heartbeatsPerSecond: config.heartbeatsPerSecond,
    },
    firstLeaseMs: config.firstLeaseMs,
    retention: { ms: config.transitionRetentionMs, transitions: config.transitionLimit },
    watchMaxAgeMs: config.watchMaxAgeMs,
    log,
  });
  process.stdout.write(greeting(server.addresses, database.dataDir ?? label));
  const why = await Promise.race([aborted(stopping), database.ended.then(() => "database ended" as const)]);
  if (why === "database ended") {
    log.fatal({}, "the embedded PostgreSQL ended by itself: stopping");
    await server.stop(0);
    return EXIT_FAILED;
  }
  log.info({}, "draining; a second signal ends it at once");
  await Promise.race([server.stop(config.drainGraceMs), aborted(hurrying).then(() => server.stop(0))]);
  log.info({}, "stopped");
  return EXIT_OK;
}

function aborted(signal: AbortSignal): Promise<"aborted"> {
  if (signal.aborted) return Promise.resolve("aborted");
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve("aborted"), { once: true }));
}

/** What `serve` says on standard output once it serves. */
export function greeting({ grpc, http }: Addresses, data: string): string {
  const service = "harborforge.agents.v1.AgentService";
  return `gRPC  http://${grpc}
HTTP  http://${http}
Data  ${data}

Try, in another terminal:
  npx buf curl --protocol grpc --http2-prior-knowledge -d '{"username":"ada","agentId":"ada-1","clawIdentifier":"claw-1"}' http://${grpc}/harborforge.agents.v1.UserService/CreateUser
  npx buf curl --protocol grpc --http2-prior-knowledge -d '{"beats":[{"agentId":"ada-1","status":"AGENT_STATUS_BUSY"}]}' http://${grpc}/${service}/SendHeartbeat
  npx buf curl --protocol grpc --http2-prior-knowledge -d '{}' http://${grpc}/${service}/WatchAgents
`;
}
