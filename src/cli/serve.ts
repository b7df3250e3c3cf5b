import { formatAddress } from "../config/values.ts";
import { Server } from "../server.ts";
import { migrate } from "../storage/migrations.ts";
import { type CommandContext, type Flags, runCommand } from "./command.ts";
import { EXIT_FAILED, EXIT_OK } from "./exit-codes.ts";
import { greeting } from "./greeting.ts";
import { aborted, unlessAborted } from "./stop-signals.ts";

/**
 * `serve`: runs a replica until a signal, then drains it. A second signal stops it at once.
 *
 * @returns the exit code
 */
export function serveCommand(process: NodeJS.Process, flags: Flags): Promise<number> {
  return runCommand(process, flags, serve);
}

async function serve(context: CommandContext): Promise<number> {
  const { process, config, database, databaseName, log, signals } = context;
  const applied = await unlessAborted(migrate(database.url), signals.stopping);
  if (applied.length > 0) log.info({ event: "database.migrated", migrations: applied }, "migrated the database");
  const server = await unlessAborted(
    Server.start({
      databaseUrl: database.url,
      grpcAddress: formatAddress(config.grpcAddress),
      httpAddress: formatAddress(config.httpAddress),
      pace: {
        shortestIntervalMs: config.heartbeatIntervalMs,
        heartbeatsPerSecond: config.heartbeatsPerSecond,
      },
      firstLeaseMs: config.firstLeaseMs,
      retention: { ms: config.transitionRetentionMs, transitions: config.transitionLimit },
      wakeRetentionMs: config.wakeRetentionMs,
      offerLimits: { perSecond: config.wakesPerSecond, perClaw: config.offersPerClaw },
      watchMaxAgeMs: config.watchMaxAgeMs,
      tls: config.tls,
      connectionLimits: { maxConnections: config.maxConnections, connectionsPerSecond: config.connectionsPerSecond },
      callLimits: { requestsPerSecond: config.requestsPerSecond, streamsPerCaller: config.streamsPerCaller },
      reflection: config.reflection,
      access: config.access,
      log,
    }),
    signals.stopping,
  );
  process.stdout.write(
    greeting(
      server.addresses,
      database.dataDir ?? databaseName,
      config.tls !== undefined,
      config.access.kind === "credentials",
    ),
  );
  log.debug({ event: "service.started", ...server.addresses }, "serving");
  const why = await Promise.race([aborted(signals.stopping), database.ended.then(() => "database ended" as const)]);
  if (why === "database ended") {
    log.fatal({ event: "service.postgres_ended" }, "embedded PostgreSQL ended by itself, stopping");
    await server.stop(0);
    return EXIT_FAILED;
  }
  if (!signals.hurrying.aborted) log.info({ event: "service.draining" }, "draining, a second signal stops at once");
  await drain(server, context);
  log.info({ event: "service.stopped" }, "stopped");
  return EXIT_OK;
}

async function drain(server: Server, { config, log, signals }: CommandContext): Promise<void> {
  const drained = server.stop(config.drainGraceMs);
  await Promise.race([drained, aborted(signals.hurrying)]);
  if (!signals.hurrying.aborted) return;
  log.info({ event: "service.stopping_now" }, "stopping at once");
  // Both stops end together. If one finds something closed by the other, this is no failure.
  const outcomes = await Promise.allSettled([server.stop(0), drained]);
  for (const outcome of outcomes) {
    if (outcome.status === "rejected")
      log.debug({ event: "service.already_closed", err: outcome.reason }, "already closed");
  }
}
