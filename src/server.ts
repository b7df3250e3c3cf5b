import type { Logger } from "pino";
import { Gauge, Registry } from "prom-client";
import { type AccessControl, type AccessOptions, createAccessControl } from "./access/access-control.ts";
import { mintToken } from "./access/token-text.ts";
import { Refusal } from "./domain/errors.ts";
import { type PaceLimits, paceFor } from "./domain/lease.ts";
import { Liveness } from "./liveness/liveness.ts";
import { hearingFor } from "./liveness/membership.ts";
import { type CallLimits, DEFAULT_CALL_LIMITS } from "./rpc/callers/call-limits.ts";
import { createConnectListener } from "./rpc/connect/connect-listener.ts";
import { createGrpcListener } from "./rpc/grpc/grpc-listener.ts";
import type { Backend } from "./rpc/handlers/backend.ts";
import { accessRule, admitToMetrics } from "./rpc/pipeline/access-rules.ts";
import { createAudit } from "./rpc/pipeline/audit.ts";
import { createPipeline, type Pipeline } from "./rpc/pipeline/pipeline.ts";
import { brakeNotes, createHealth, databaseNotes, type Health } from "./rpc/services/health.ts";
import { createServices } from "./rpc/services/services.ts";
import {
  type ConnectionGate,
  type ConnectionLimits,
  createConnectionGate,
  DEFAULT_CONNECTION_LIMITS,
} from "./rpc/sockets/connection-gate.ts";
import { createHostCheck } from "./rpc/sockets/host-check.ts";
import { DEFAULT_LISTENER_LIMITS } from "./rpc/sockets/limits.ts";
import type { Listener } from "./rpc/sockets/listener.ts";
import { MessageQueue } from "./rpc/sockets/message-queue.ts";
import { DEFAULT_RECEIVE_LIMITS, ReceiveBudget } from "./rpc/sockets/receive-budget.ts";
import { SendBudget } from "./rpc/sockets/send-budget.ts";
import { StreamScheduler } from "./rpc/sockets/stream-scheduler.ts";
import type { TlsSettings } from "./rpc/tls/certificate-files.ts";
import { createTls, type Tls } from "./rpc/tls/tls.ts";
import { PeriodicTask } from "./scheduling/periodic-task.ts";
import { createAgentDirectory } from "./storage/agent-directory.ts";
import { Committer } from "./storage/committer.ts";
import { type Database, openDatabase } from "./storage/database.ts";
import { isLost } from "./storage/failures.ts";
import { DatabaseProbe } from "./storage/probe.ts";
import { registerReplica } from "./storage/replica-row.ts";
import { sweepRequestIds } from "./storage/request-answers.ts";
import { createTokenDirectory, sweepTokens } from "./storage/token-directory.ts";
import { type RetentionLimits, TransitionRetention } from "./storage/transition-retention.ts";
import { createUserDirectory } from "./storage/user-directory.ts";
import { createWatching, type Watching, type WatchingOptions } from "./watch/watching.ts";

export interface ServerOptions {
  /** A migrated database. */
  readonly databaseUrl: string;
  /** `host:port` of the two listeners; port 0 takes a free one. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly pace: PaceLimits;
  /** How long a new agent may wait with its first heartbeat, in milliseconds. */
  readonly firstLeaseMs: number;
  /** Which transitions are kept; seven days of them, ten million at most, unless told. */
  readonly retention?: RetentionLimits;
  /** How old a watch stream gets, give or take a quarter, in milliseconds; 30 min unless told. */
  readonly watchMaxAgeMs?: number | undefined;
  /** Who is let in; everybody unless told. */
  readonly access?: AccessOptions;
  /** Other than the defaults for tests that mean to overrun them. */
  readonly watchLimits?: Pick<WatchingOptions, "ringCapacity" | "queueLimit" | "pageSize">;
  /** The files of TLS; without them the listeners speak in cleartext. */
  readonly tls?: TlsSettings | undefined;
  readonly connectionLimits?: ConnectionLimits;
  readonly callLimits?: CallLimits;
  /** Whether gRPC server reflection is served. Default true. */
  readonly reflection?: boolean;
  readonly log: Logger;
}

/** The addresses in force, `host:port`. */
export interface Addresses {
  readonly grpc: string;
  readonly http: string;
}

/** How long streams have to go elsewhere, as a share of the grace that a stop gives. */
const RECONNECT_SHARE = 0.5;
/** How long streams that did not go elsewhere have to be told of what was written for them. */
const FINISH_MS = 1_000;
const POLL_MS = 20;
/** Answers of requests are kept for 24 h, tokens for 90 days after their end; how soon after that they go matters little. */
const SWEEP_MS = 3_600_000;
/** How often a partition of the log is looked for that may go. */
const RETENTION_MS = 60_000;
const RETENTION: RetentionLimits = { ms: 7 * 24 * 3_600_000, transitions: 10_000_000 };

const DATABASE_UNAVAILABLE = "the database is unavailable";
const CUT_OFF = "cannot write to the database";
const DRAINING = "draining";

/** One replica of the service, over one database. */
export class Server {
  readonly addresses: Addresses;
  readonly #parts: Parts;
  #closed: Promise<void> | undefined;

  private constructor(parts: Parts, addresses: Addresses) {
    this.#parts = parts;
    this.addresses = addresses;
  }

  /** Serves when the promise resolves. Rejects, and leaves nothing behind, where a listener or the database cannot be had. */
  static async start(options: ServerOptions): Promise<Server> {
    const parts = await assemble(options);
    try {
      await parts.watching.start();
      await parts.liveness.start();
      parts.access.start();
      parts.probe.start();
      parts.sweep.start();
      parts.compaction.start();
      const [grpc, http] = await Promise.all([
        opened("gRPC listener", "HARBORFORGE_GRPC_ADDRESS", options.grpcAddress, parts.grpcListener),
        opened("Connect listener", "HARBORFORGE_HTTP_ADDRESS", options.httpAddress, parts.connectListener),
      ]);
      return new Server(parts, { grpc, http });
    } catch (error) {
      await close(parts);
      throw error;
    }
  }

  /**
   * Stops: health says so, streams are asked to go elsewhere and calls to finish, both within `graceMs`; what was sent
   * is written and acknowledged, or not acknowledged; then everything ends. May be called again.
   */
  async stop(graceMs: number): Promise<void> {
    const { health, liveness, watching, pipeline, grpcListener, connectListener, stopping } = this.#parts;
    if (!stopping.value) {
      stopping.value = true;
      health.suspend(DRAINING);
      liveness.drain(graceMs * RECONNECT_SHARE);
      watching.drain();
      void grpcListener.drain();
      void connectListener.drain();
    }
    await quiet(pipeline, graceMs);
    await liveness.finish(Math.min(graceMs, FINISH_MS));
    pipeline.endStreams(drainingRefusal(pipeline.openStreams.size));
    await quiet(pipeline, Math.min(graceMs, 1_000));
    this.#closed ??= close(this.#parts);
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop(0);
  }
}

interface Parts {
  readonly database: Database;
  readonly committer: Committer;
  readonly watching: Watching;
  readonly liveness: Liveness;
  readonly probe: DatabaseProbe;
  readonly sweep: PeriodicTask;
  readonly retention: TransitionRetention;
  readonly compaction: PeriodicTask;
  readonly access: AccessControl;
  readonly health: Health;
  readonly pipeline: Pipeline;
  readonly tls: Tls | undefined;
  readonly grpcListener: Listener;
  readonly connectListener: Listener;
  /** Set while the replica stops: no call is admitted any more. */
  readonly stopping: { value: boolean };
}

async function assemble(options: ServerOptions): Promise<Parts> {
  const { log } = options;
  // Before anything is opened: files that cannot be used are the commonest reason not to start.
  const tls = options.tls === undefined ? undefined : createTls({ ...options.tls, log });
  const database = openDatabase({
    url: options.databaseUrl,
    onIdleError: (error) => log.debug({ err: error }, "an idle database connection ended"),
  });
  let replica: number;
  let access: AccessControl;
  try {
    await database.connect();
    access = await createAccessControl(options.access ?? { kind: "open" }, { database, log });
    replica = await registerReplica(database, hearingFor(paceFor(0, options.pace)));
  } catch (error) {
    tls?.close();
    await database.close();
    throw error;
  }
  const watching = createWatching({ database, log, maxAgeMs: options.watchMaxAgeMs, ...options.watchLimits });
  const committer = new Committer(database, replica, () => watching.notifyCommitted());
  const health = createHealth();
  const liveness = new Liveness({
    database,
    committer,
    replica,
    pace: options.pace,
    log,
    onCutOff: () => health.suspend(CUT_OFF),
    onBack: () => health.resume(CUT_OFF),
  });
  watching.feed.subscribe({
    onTransitions: (transitions) => {
      for (const transition of transitions) liveness.changed(transition);
    },
    onGap: () => void liveness.passedGap(),
    onRestart: () => liveness.restarted(),
  });
  const directory = {
    database,
    committer,
    firstLeaseMs: options.firstLeaseMs,
    onLease: liveness.created.bind(liveness),
  };
  const backend: Backend = {
    users: createUserDirectory(directory),
    agents: createAgentDirectory(directory),
    heartbeats: liveness,
    watches: watching.watches,
    tokens: createTokenDirectory(database, mintToken),
  };
  const probe = new DatabaseProbe({
    database,
    onState: (state) =>
      state === "unavailable" ? health.suspend(DATABASE_UNAVAILABLE) : health.resume(DATABASE_UNAVAILABLE),
    log,
  });
  const retention = new TransitionRetention({ database, limits: options.retention ?? RETENTION, log });
  const gate = createConnectionGate(options.connectionLimits ?? DEFAULT_CONNECTION_LIMITS, log);
  const metrics = createMetrics(liveness, watching, committer, gate, tls);
  const stopping = { value: false };
  const pipeline = createPipeline({
    log,
    metrics,
    callLimits: options.callLimits ?? DEFAULT_CALL_LIMITS,
    admission: () => (stopping.value ? drainingRefusal(1) : undefined),
    access: { authenticate: access.authenticate, rule: accessRule, audit: createAudit(log) },
  });
  const budget = new ReceiveBudget({ ...DEFAULT_RECEIVE_LIMITS, messageMs: DEFAULT_LISTENER_LIMITS.requestMs });
  const queue = new MessageQueue(budget);
  const sendBudget = new SendBudget();
  const scheduler = new StreamScheduler();
  const choice = options.access ?? { kind: "open" };
  const hostCheck = choice.kind === "open" ? createHostCheck(choice.allowedHosts ?? []) : undefined;
  const services = createServices(pipeline, health, backend, { reflection: options.reflection ?? true });
  return {
    database,
    committer,
    watching,
    liveness,
    probe,
    sweep: new PeriodicTask({
      isLost,
      name: "sweep old request ids and tokens",
      everyMs: SWEEP_MS,
      log,
      run: async () => {
        await sweepRequestIds(database);
        await sweepTokens(database);
      },
    }),
    retention,
    access,
    compaction: new PeriodicTask({
      isLost,
      name: "remove old transitions",
      everyMs: RETENTION_MS,
      log,
      run: () => retention.run(),
    }),
    health,
    pipeline,
    tls,
    grpcListener: createGrpcListener({ services, log, gate, tls, budget, sendBudget, queue, scheduler, hostCheck }),
    connectListener: createConnectListener({
      services,
      log,
      metrics,
      ready: () => health.why,
      mayReadMetrics: async (credentials) => admitToMetrics((await access.authenticate(credentials)).principal),
      notes: () => [...databaseNotes(probe.state), ...brakeNotes(liveness.brake)],
      gate,
      tls,
      budget,
      sendBudget,
      queue,
      scheduler,
      hostCheck,
    }),
    stopping,
  };
}

/** In the order in which each still has what it needs: the listeners, what they brought, the database. */
async function close(parts: Parts): Promise<void> {
  await Promise.all([parts.grpcListener.close(), parts.connectListener.close()]);
  parts.tls?.close();
  await parts.liveness.close();
  await parts.committer.close();
  await parts.watching.close();
  await parts.access.close();
  await parts.probe.close();
  await parts.sweep.close();
  parts.retention.close();
  await parts.compaction.close();
  await parts.database.close();
}

function createMetrics(
  liveness: Liveness,
  watching: Watching,
  committer: Committer,
  gate: ConnectionGate,
  tls: Tls | undefined,
): Registry {
  const metrics = new Registry();
  const gauges = [
    {
      name: "harborforge_heartbeat_streams",
      help: "Heartbeat streams that are open.",
      read: () => liveness.statistics().sessions,
    },
    {
      name: "harborforge_agents_in_sight",
      help: "Agents whose sessions or leases this replica looks after.",
      read: () => liveness.statistics().agents,
    },
    {
      name: "harborforge_silent_claws",
      help: "Claws that fell silent since the start, as this replica found.",
      read: () => liveness.statistics().silentClaws,
    },
    {
      name: "harborforge_expiry_brake_engaged",
      help: "1 while leases end slowly, after a mass silence.",
      read: () => (liveness.brake.engagedAt === null ? 0 : 1),
    },
    {
      name: "harborforge_expiry_held_back",
      help: "Agents whose leases have ended and that the brake holds back.",
      read: () => Number(liveness.brake.heldBack),
    },
    { name: "harborforge_changes_waiting", help: "Changes that wait for the database.", read: () => committer.waiting },
    { name: "harborforge_connections", help: "Connections that are open, at both listeners.", read: () => gate.open },
    {
      name: "harborforge_connections_refused",
      help: "Connections that were closed at once since the start, as too many.",
      read: () => gate.refused,
    },
    ...(tls === undefined
      ? []
      : [
          {
            name: "harborforge_tls_certificate_expiry_timestamp_seconds",
            help: "Until when the certificate that the listeners show counts, in unix seconds.",
            read: () => tls.notAfterMs / 1_000,
          },
        ]),
    { name: "harborforge_watches", help: "Watches that are open.", read: () => watching.watches.size },
  ];
  for (const { name, help, read } of gauges) {
    const gauge: Gauge = new Gauge({ name, help, registers: [metrics], collect: () => gauge.set(read()) });
  }
  return metrics;
}

function drainingRefusal(others: number): Refusal {
  // The more there are, the longer they spread out.
  const retryAfterMs = Math.ceil(100 + Math.random() * Math.min(5_000, others * 10));
  return new Refusal("DRAINING", "This replica is about to stop. Go to another one.", { retryAfterMs });
}

async function quiet(pipeline: Pipeline, withinMs: number): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (pipeline.callsInProgress > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** A port that cannot be had: a sentence that says which, and what to set. */
export class AddressError extends Error {
  override readonly name = "AddressError";
}

async function opened(name: string, setting: string, address: string, listener: Listener): Promise<string> {
  try {
    return await listener.start(address);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const why = {
      EADDRINUSE: "another program listens there already",
      EACCES: "this user may not listen there",
      EADDRNOTAVAIL: "this machine has no such address",
      ENOTFOUND: "there is no such host",
    }[String(code)];
    if (why === undefined) throw error;
    throw new AddressError(`The ${name} cannot listen on ${address}: ${why}. Set ${setting} to another address.`, {
      cause: error,
    });
  }
}
