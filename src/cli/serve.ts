import { setTimeout as delay } from "node:timers/promises";
import type { ProgramLog } from "../../common/logging/logger.ts";
import type { Config } from "../config/config.ts";
import { databaseLabel, formatAddress } from "../config/values.ts";
import { connectionsWithin, openFilesFor } from "../rpc/sockets/open-files.ts";
import type { Release } from "../server/options.ts";
import { Server } from "../server.ts";
import { startTracing } from "../telemetry/tracing/start-tracing.ts";
import type { Tracing } from "../telemetry/tracing/tracing.ts";
import { type AuditLog, openAuditLog } from "./audit-log.ts";
import { type CommandContext, type Flags, runCommand } from "./command.ts";
import { EXIT_FAILED, EXIT_OK } from "./exit-codes.ts";
import { greeting } from "./greeting.ts";
import { openFilesLimit } from "./open-files.ts";
import { readRelease } from "./release.ts";
import { prepareSchema, reportSchema } from "./schema.ts";
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
  const { process, config, log } = context;
  await using audit = openAuditLog(config.audit.file, log);
  if (config.migrate === "check") return await reportSchema(context);
  await prepareSchema(context, config.migrate);
  const release = readRelease();
  const traces = await startTracing(process.env, release, log);
  try {
    return await serveReplica(context, audit, release, traces?.tracing);
  } finally {
    await traces?.stop();
  }
}

async function serveReplica(
  context: CommandContext,
  audit: AuditLog,
  release: Release,
  tracing: Tracing | undefined,
): Promise<number> {
  const { process, config, database, databaseName, log, signals } = context;
  const openFiles = openFilesLimit(process);
  const server = await unlessAborted(
    Server.start({
      databaseUrl: database.url,
      latestDatabaseUrl: database.latestUrl,
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
      connectionLimits: {
        maxConnections: config.maxConnections,
        connectionsPerSecond: config.connectionsPerSecond,
        openFiles,
      },
      callLimits: { requestsPerSecond: config.requestsPerSecond, streamsPerCaller: config.streamsPerCaller },
      reflection: config.reflection,
      compression: config.compression,
      allowedOrigins: config.allowedOrigins,
      access: config.access,
      log,
      audit: { log: audit.log, calls: config.audit.calls },
      release,
      tracing,
    }),
    signals.stopping,
  );
  warnOfFewFiles(openFiles, config, log);
  process.stdout.write(
    greeting(
      server.addresses,
      database.dataDir ?? databaseName,
      config.tls !== undefined,
      config.access.kind === "credentials",
    ),
  );
  log.info(
    {
      event: "service.started",
      ...release,
      node: process.version,
      ...server.addresses,
      database: database.dataDir ?? databaseLabel(database.url),
      replica: server.replica,
      limits: limitsOf(config),
    },
    "serving",
  );
  const databaseEnded = database.ended.then(() => "database ended" as const);
  let why = await Promise.race([aborted(signals.stopping), databaseEnded]);
  if (why === "aborted" && config.drainDelayMs > 0) {
    why = await Promise.race([announceStop(server, context), databaseEnded]);
  }
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

/** The settings that decide what a replica accepts and keeps, for the start line. None of them is a secret. */
function limitsOf(config: Config): object {
  return {
    heartbeatIntervalMs: config.heartbeatIntervalMs,
    heartbeatsPerSecond: config.heartbeatsPerSecond,
    firstLeaseMs: config.firstLeaseMs,
    maxConnections: config.maxConnections,
    connectionsPerSecond: config.connectionsPerSecond,
    requestsPerSecond: config.requestsPerSecond,
    streamsPerCaller: config.streamsPerCaller,
    watchMaxAgeMs: config.watchMaxAgeMs,
    transitionRetentionMs: config.transitionRetentionMs,
    transitionLimit: config.transitionLimit,
    drainGraceMs: config.drainGraceMs,
    auth: config.access.kind === "credentials" ? "required" : "none",
    tls: config.tls !== undefined,
  };
}

function warnOfFewFiles(openFiles: number | undefined, { maxConnections }: Config, log: ProgramLog): void {
  const needed = openFilesFor(maxConnections);
  if (openFiles === undefined || openFiles >= needed) return;
  const facts = { openFiles, needed, maxConnections, connections: connectionsWithin(openFiles) };
  log.warn({ event: "process.files_limited", ...facts }, "the limit of open files limits connections");
}

/** Serves on while load balancers learn that this replica stops. A second signal ends the delay. */
async function announceStop(server: Server, { config, log, signals }: CommandContext): Promise<"aborted"> {
  const delayMs = config.drainDelayMs;
  server.announceStop();
  log.info({ event: "service.stop_announced", delayMs }, "not ready, draining after the delay");
  await delay(delayMs, undefined, { signal: signals.hurrying, ref: false }).catch(() => undefined);
  return "aborted";
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
