import { type AccessControl, createAccessControl } from "../access/access-control.ts";
import { mintToken } from "../access/token-text.ts";
import { paceFor } from "../domain/lease.ts";
import { Liveness } from "../liveness/liveness.ts";
import { isolationTimesFor } from "../liveness/membership.ts";
import type { Backend } from "../rpc/handlers/backend.ts";
import { createHealth, type Health } from "../rpc/services/health.ts";
import { createTls, type Tls } from "../rpc/tls/tls-acceptor.ts";
import { createAgentDirectory } from "../storage/agent-directory.ts";
import { Committer } from "../storage/committer.ts";
import { type Database, openDatabase } from "../storage/database.ts";
import { faultText } from "../storage/failures.ts";
import { DatabaseFaults, faultTextOf, SESSION_LOST } from "../storage/faults.ts";
import { DatabaseProbe } from "../storage/probe.ts";
import { registerReplica } from "../storage/replica-row.ts";
import { createTokenDirectory } from "../storage/token-directory.ts";
import { createUserDirectory } from "../storage/user-directory.ts";
import { createWakeDirectory } from "../storage/wake-directory.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import { FleetWatches } from "../watch/fleet-watches.ts";
import { createWatching, MAX_AGE_MS, type Watching } from "../watch/watching.ts";
import { Drain } from "./drain.ts";
import { createListeners, type Listeners } from "./listeners.ts";
import { OpenFilesWatch } from "./open-files-watch.ts";
import type { ServerOptions } from "./options.ts";
import { DEFAULT_RETENTION, PeriodicTasks } from "./periodic-tasks.ts";
import { Readiness } from "./readiness.ts";

const DATABASE_AWAY = "the database is away";
const CUT_OFF = "cannot write to the database";
const DISK_FULL = "the database fails changes";
const NO_SESSIONS = "the database changes sessions";

/** The parts of one replica, wired. */
export interface Replica extends Listeners {
  /** Its number, which was never used before. */
  readonly number: number;
  readonly database: Database;
  readonly committer: Committer;
  readonly watching: Watching;
  readonly fleetWatches: FleetWatches;
  readonly liveness: Liveness;
  readonly probe: DatabaseProbe;
  readonly tasks: PeriodicTasks;
  readonly access: AccessControl;
  readonly health: Health;
  readonly readiness: Readiness;
  readonly tls: Tls | undefined;
  readonly drain: Drain;
  readonly openFiles: OpenFilesWatch;
}

/** Opens the database and wires the parts. Nothing serves yet. Leaves nothing open where it rejects. */
export async function assembleReplica(options: ServerOptions): Promise<Replica> {
  const { log } = options;
  const metrics = new Metrics();
  // Before anything is opened: unusable files are the most frequent reason that a start fails.
  const tls = options.tls === undefined ? undefined : createTls({ ...options.tls, log });
  const health = createHealth();
  const readiness = new Readiness(health);
  const faults = new DatabaseFaults({
    log,
    onChange: (code, persists) => {
      // The other faults are the reasons of failed refreshes and reads.
      if (code === "25006" || code === "53300") return;
      const reason = code === "53100" ? DISK_FULL : NO_SESSIONS;
      if (persists) readiness.lose(reason, faultTextOf(code));
      else readiness.regain(reason);
    },
  });
  const { database, replica, access } = await openStorage(options, metrics, tls, faults);
  const watching = createWatching({ database, log, metrics, maxAgeMs: options.watchMaxAgeMs, ...options.watchLimits });
  const committer = new Committer(database, replica, () => watching.notifyCommitted(), {
    metrics,
    tracing: options.tracing,
    offerLimits: options.offerLimits,
  });
  const liveness = new Liveness({
    database,
    committer,
    replica,
    pace: options.pace,
    offerLimits: options.offerLimits,
    log,
    metrics,
    onCutOff: (error) => readiness.lose(CUT_OFF, faultText(error)),
    onBack: () => readiness.regain(CUT_OFF),
  });
  watching.feed.subscribe({
    onTransitions: (transitions) => {
      for (const transition of transitions) liveness.onTransition(transition);
    },
    onGap: () => void liveness.onGap(),
    onRestart: () => liveness.onRestart(),
  });
  const probe = new DatabaseProbe({
    database,
    faults,
    onState: (state, error) => {
      if (state === "unavailable") readiness.lose(DATABASE_AWAY, faultText(error));
      else readiness.regain(DATABASE_AWAY);
    },
    log,
  });
  const drain = new Drain();
  const retention = options.retention ?? DEFAULT_RETENTION;
  const tasks = new PeriodicTasks({ database, retention, wakeRetentionMs: options.wakeRetentionMs, log });
  const openFiles = new OpenFilesWatch(log);
  const backend = createBackend(options, { database, committer, liveness, watching });
  watching.feed.subscribe(backend.fleetWatches);
  const served = createListeners(options, {
    backend,
    metrics,
    retention,
    tasks,
    health,
    liveness,
    watching,
    committer,
    probe,
    faults,
    access,
    tls,
    drain,
    openFiles,
  });
  return {
    number: replica,
    database,
    committer,
    watching,
    fleetWatches: backend.fleetWatches,
    liveness,
    probe,
    tasks,
    access,
    health,
    readiness,
    tls,
    drain,
    openFiles,
    ...served,
  };
}

/** Closes the parts in the order in which each still has what it needs: the listeners, their sessions, the database. */
export async function closeReplica(replica: Replica): Promise<void> {
  await Promise.all([replica.listeners.grpc.close(), replica.listeners.connect.close()]);
  replica.tls?.close();
  await replica.liveness.close();
  await replica.committer.close();
  await replica.watching.close();
  await replica.access.close();
  await replica.probe.close();
  replica.readiness.close();
  await replica.tasks.close();
  await replica.openFiles.close();
  await replica.database.close();
}

async function openStorage(options: ServerOptions, metrics: Metrics, tls: Tls | undefined, faults: DatabaseFaults) {
  const { log } = options;
  const database = openDatabase({
    url: options.databaseUrl,
    metrics,
    tracing: options.tracing,
    latestUrl: options.latestDatabaseUrl,
    onServerError: (code) => faults.note(code),
    onSessionLost: () => faults.note(SESSION_LOST),
    onIdleError: (error) =>
      log.debug({ event: "database.connection_ended", err: error }, "an idle database connection ended"),
  });
  try {
    await database.connect();
    const access = await createAccessControl(options.access ?? { kind: "open" }, { database, log, metrics });
    const replica = await registerReplica(database, isolationTimesFor(paceFor(0, options.pace)));
    return { database, access, replica };
  } catch (error) {
    tls?.close();
    await database.close();
    throw error;
  }
}

function createBackend(
  options: ServerOptions,
  { database, committer, liveness, watching }: Pick<Replica, "database" | "committer" | "liveness" | "watching">,
): Backend & Pick<Replica, "fleetWatches"> {
  const directory = {
    database,
    committer,
    firstLeaseMs: options.firstLeaseMs,
    onLease: liveness.onCreated.bind(liveness),
  };
  const agents = createAgentDirectory(directory);
  const fleetWatches = new FleetWatches({
    count: agents.fleet,
    brake: () => liveness.brake,
    maxAgeMs: options.watchMaxAgeMs ?? MAX_AGE_MS,
  });
  return {
    users: createUserDirectory(directory),
    agents,
    heartbeats: liveness,
    watches: watching.watches,
    fleetWatches,
    tokens: createTokenDirectory(database, mintToken),
    wakes: createWakeDirectory({ database, committer }),
    wakeFollowing: watching.wakes,
  };
}
