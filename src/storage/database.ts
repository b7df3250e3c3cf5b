import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { Semaphore } from "../../common/scheduling/semaphore.ts";
import type { LabelsOf } from "../telemetry/metrics/metric-table.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import type { Tracing } from "../telemetry/tracing/tracing.ts";
import { DatabaseClock } from "./clock.ts";
import { columnTypes } from "./column-types.ts";
import { CONNECTION_WAIT_MS, HANDSHAKE_MS, newSocket, PatientPool } from "./connections.ts";
import { DatabaseHosts } from "./database-hosts.ts";
import { isQueryTimeout } from "./failures.ts";
import { clientClassOf, ServiceClient } from "./service-client.ts";
import type { SessionSettings } from "./session.ts";
import { createStatementObserver } from "./statement-observer.ts";

/**
 * The connection pools. Separate pools keep a flood of one kind of work from taking the connections of another. Beats
 * also have another durability.
 */
export interface Database {
  /** For renewals only: `synchronous_commit = off`. A crash of the database may lose the last second of them. */
  readonly beats: pg.Pool;
  /** For transitions and claims: an acknowledged one is on disk. */
  readonly commits: pg.Pool;
  /** For reads of agents by their keys, the most frequent calls of services. */
  readonly reads: pg.Pool;
  /** For the other calls, through Objection. */
  readonly knex: Knex;
  /** Limits changes through Objection, so that reads always find a connection. */
  readonly changes: Semaphore;
  /** For the reader of the log, for snapshots, and for the tasks of a replica. */
  readonly feed: pg.Pool;
  readonly clock: DatabaseClock;
  /** When a statement last succeeded, of `performance.now()`. `-Infinity`: none has yet. */
  readonly answeredAt: number;
  /** When a query last timed out, of `performance.now()`. `-Infinity`: never. */
  readonly lastTimeoutAt: number;
  /** Resolves when each pool has a connection. Takes as long as the server needs. */
  connect(): Promise<void>;
  /**
   * A separate client that is not connected yet, e.g. for LISTEN.
   *
   * @param config added to the settings of all connections
   */
  newClient(name: string, config?: pg.ClientConfig): pg.Client;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** May name several hosts: each connection goes to the writable one. */
  readonly url: string;
  /** The URL as it is now, if its user or password may change: new connections use these. */
  readonly latestUrl?: (() => Promise<string>) | undefined;
  /** An idle connection of a pool failed. No work is lost. */
  onIdleError(error: Error): void;
  /** The server failed a statement, or rejected a login, with this SQLSTATE. */
  onServerError?(code: string): void;
  /** A connection was closed, because it had another session than the one that it began. */
  onSessionLost?(): void;
  /** Default: metrics that nothing reads. */
  readonly metrics?: Metrics;
  /** Undefined: tracing is off. */
  readonly tracing?: Tracing | undefined;
}

/** No statement of this service takes longer than a page of work. A longer one is stuck. */
const STATEMENT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 2_000;
/** A replica that freezes during a transaction must not keep its locks. */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 2_000;
/** Longer than the server's own timeout: after it, the connection is dead. */
const QUERY_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 2_000;
/** Connections for the API, and how many of them changes may use at the same time. */
const API_CONNECTIONS = 5;
const API_CHANGES = 3;

/**
 * Statements for up to a thousand agents find each of them by an index. With plans for the actual values, PostgreSQL
 * would read the whole fleet.
 */
const ONE_PLAN: SessionSettings = { plan_cache_mode: "force_generic_plan" };

/** Besides those of all sessions (session.ts). */
const SETTINGS: SessionSettings = {
  jit: "off",
  plan_cache_mode: "auto",
  statement_timeout: `${STATEMENT_TIMEOUT_MS}`,
  lock_timeout: `${LOCK_TIMEOUT_MS}`,
  idle_in_transaction_session_timeout: `${IDLE_IN_TRANSACTION_TIMEOUT_MS}`,
  // The server also closes the connection of a dead peer, and frees its locks.
  tcp_user_timeout: "10000",
};

/** Keeps Knex from writing to standard output, which belongs to the program. Callers get the errors anyway. */
export const SILENT_LOG: Knex.Logger = { warn() {}, error() {}, debug() {}, deprecate() {} };

/** A connection of Knex's pool. */
interface KnexConnection {
  readonly connection: { readonly stream: Socket };
}

/**
 * Knex keeps a connection whose query timed out, and would lend it again. A dead peer does not close the connection. So
 * connections without traffic for longer than any query takes are closed, also idle ones.
 */
function destroyWhenIdle(socket: Socket, ms: number): void {
  socket.setTimeout(ms, () => socket.destroy());
}

type PoolConnections = LabelsOf<"harborforge_database_pool_connections">;

function connectionsOf(pool: PoolConnections["pool"], of: PatientPool): [PoolConnections, number][] {
  return [
    [{ pool, state: "idle" }, of.idleCount],
    [{ pool, state: "used" }, of.totalCount - of.idleCount],
    [{ pool, state: "waiting" }, of.waiting],
  ];
}

/** Knex's pool. It is absent after the end. */
interface ApiPool {
  numFree(): number;
  numUsed(): number;
  numPendingAcquires(): number;
}

function connectionsOfApi(of: ApiPool | undefined): [PoolConnections, number][] {
  return [
    [{ pool: "api", state: "idle" }, of?.numFree() ?? 0],
    [{ pool: "api", state: "used" }, of?.numUsed() ?? 0],
    [{ pool: "api", state: "waiting" }, of?.numPendingAcquires() ?? 0],
  ];
}

/** Opens the pools. They connect on demand; `connect` does so at once. */
export function openDatabase(options: DatabaseOptions): Database {
  const onServerError = (code: string): void => options.onServerError?.(code);
  const hosts = new DatabaseHosts(options.url, { latestUrl: options.latestUrl, onServerError });
  const connecting = new Set<Duplex>();
  const { metrics = new Metrics(), tracing } = options;
  const observe = createStatementObserver(metrics, tracing);
  let answeredAt = Number.NEGATIVE_INFINITY;
  let lastTimeoutAt = Number.NEGATIVE_INFINITY;
  const answered = (): void => {
    answeredAt = performance.now();
  };
  const sessionOf = (settings: SessionSettings = {}) => ({
    hosts,
    connecting,
    observe,
    onServerError,
    onSessionLost: () => options.onSessionLost?.(),
    settings: { ...SETTINGS, ...settings },
  });
  const clientConfig = (name: string) =>
    ({
      connectionString: hosts.firstUrl,
      application_name: `harborforge-agents ${name}`,
      connectionTimeoutMillis: HANDSHAKE_MS,
      stream: newSocket,
      query_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: 5_000,
      types: columnTypes,
    }) satisfies pg.ClientConfig;
  const clock = new DatabaseClock();
  const pool = (name: string, max: number, settings?: SessionSettings): PatientPool => {
    const Client = clientClassOf(sessionOf(settings));
    const configuration = { ...clientConfig(name), Client, max, min: 0, idleTimeoutMillis: 30_000 };
    const created = new PatientPool(configuration, tracing);
    created.on("error", options.onIdleError);
    created.on("connect", () => clock.forget());
    created.on("release", (error) => {
      if (!error) answered();
      else if (isQueryTimeout(error)) lastTimeoutAt = performance.now();
    });
    return created;
  };
  const beats = pool("beats", 2, { synchronous_commit: "off", ...ONE_PLAN });
  const commits = pool("commits", 2, ONE_PLAN);
  const feed = pool("feed", 4);
  const reads = pool("reads", 3);
  const knex = knexFactory({
    client: "pg",
    connection: {
      ...clientConfig("api"),
      stream: () => {
        const socket = newSocket();
        destroyWhenIdle(socket, HANDSHAKE_MS + QUERY_TIMEOUT_MS);
        return socket;
      },
    },
    pool: {
      min: 0,
      max: API_CONNECTIONS,
      acquireTimeoutMillis: CONNECTION_WAIT_MS,
      idleTimeoutMillis: 30_000,
      afterCreate(created: KnexConnection, done: (error: undefined, created: KnexConnection) => void) {
        destroyWhenIdle(created.connection.stream, QUERY_TIMEOUT_MS + 1_000);
        clock.forget();
        done(undefined, created);
      },
    },
    log: SILENT_LOG,
  });
  knex.client.driver = { ...pg, Client: clientClassOf(sessionOf()) };
  knex.on("query-response", answered);
  metrics.gauges("harborforge_database_pool_connections", () => [
    ...connectionsOf("beats", beats),
    ...connectionsOf("commits", commits),
    ...connectionsOf("reads", reads),
    ...connectionsOf("feed", feed),
    ...connectionsOfApi(knex.client.pool),
  ]);
  return {
    beats,
    commits,
    feed,
    reads,
    knex,
    changes: new Semaphore(API_CHANGES),
    clock,
    get answeredAt() {
      return answeredAt;
    },
    get lastTimeoutAt() {
      return lastTimeoutAt;
    },
    async connect() {
      await Promise.all([beats, commits, feed, reads].map((pool) => pool.warm()));
    },
    newClient: (name, config) => new ServiceClient({ ...clientConfig(name), ...config }, sessionOf()),
    async close() {
      hosts.close();
      // Otherwise a pool would wait for its connection attempts.
      for (const socket of connecting) socket.destroy();
      await Promise.all([beats.end(), commits.end(), feed.end(), reads.end(), knex.destroy()]);
    },
  };
}
