import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { Semaphore } from "../scheduling/semaphore.ts";
import { DatabaseClock } from "./clock.ts";
import { columnTypes } from "./column-types.ts";
import { CONNECTION_WAIT_MS, HANDSHAKE_MS, newSocket, PatientPool } from "./connections.ts";
import { clientClassOf, DatabaseHosts } from "./database-hosts.ts";
import { isQueryTimeout } from "./failures.ts";

/**
 * The pools. Apart, so that a flood of one kind of work cannot take the connections of another, and because beats
 * have other durability than all else.
 */
export interface Database {
  /** Renewals only: `synchronous_commit = off`. A crash of the database may lose the last second of them. */
  readonly beats: pg.Pool;
  /** Transitions and claims: what is acknowledged is on disk. */
  readonly commits: pg.Pool;
  /** Agents by their keys, which is what services ask for most. */
  readonly reads: pg.Pool;
  /** What else people and services read and write, through Objection. */
  readonly knex: Knex;
  /** Where changes through Objection wait for a connection: they leave some of them to who only reads. */
  readonly changes: Semaphore;
  /** The reader of the log, snapshots, and the tasks of a replica. */
  readonly feed: pg.Pool;
  readonly clock: DatabaseClock;
  /** When a statement last succeeded, of `performance.now()`. `-Infinity`: none has yet. */
  readonly answeredAt: number;
  /** When a query was last given up, as it was not answered in time, of `performance.now()`. `-Infinity`: none yet. */
  readonly lastTimeoutAt: number;
  /** Resolves when every pool has a connection, as at the start. Takes as long as the server takes. */
  connect(): Promise<void>;
  /** A connection that is nobody's to share (LISTEN), not yet connected; `config` beside what all connections have. */
  newClient(name: string, config?: pg.ClientConfig): pg.Client;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** May name several hosts: each connection goes to the one that takes writes at that moment. */
  readonly url: string;
  /** A pool's idle connection failed: nothing is lost by it, but somebody should know. */
  onIdleError(error: Error): void;
}

/** No statement of this service takes longer than a page of work; what does is stuck. */
const STATEMENT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 2_000;
/** A replica that froze within a transaction must not keep its locks. */
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 2_000;
/** Beyond the server's own limit: an answer that has not come by then never will (a connection that went silent). */
const QUERY_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 2_000;
/** Connections for people and services, and how many of them changes may take at once: lists go on meanwhile. */
const API_CONNECTIONS = 5;
const API_CHANGES = 3;

/**
 * Statements for up to a thousand agents find each by an index, whatever the others are. Planned for the values of each
 * of their first executions, they would read the whole fleet instead.
 */
const ONE_PLAN = ["plan_cache_mode=force_generic_plan"];

/** Knex would write to standard output, which belongs to the program; who meets a failure is told of it anyway. */
export const SILENT_LOG: Knex.Logger = { warn() {}, error() {}, debug() {}, deprecate() {} };

/** A connection that Knex made. */
interface KnexConnection {
  readonly connection: { readonly stream: Socket };
}

/**
 * Knex keeps a connection whose query timed out, and would give it to the next caller for ever: a peer that went silent
 * tells nobody. What has carried nothing for longer than any query may take is closed instead, idle ones among them.
 */
function endWhenSilent(socket: Socket, ms: number): void {
  socket.setTimeout(ms, () => socket.destroy());
}

export function openDatabase(options: DatabaseOptions): Database {
  const hosts = new DatabaseHosts(options.url);
  const connecting = new Set<Duplex>();
  const Client = clientClassOf(hosts, connecting);
  let answeredAt = Number.NEGATIVE_INFINITY;
  let lastTimeoutAt = Number.NEGATIVE_INFINITY;
  const answered = (): void => {
    answeredAt = performance.now();
  };
  const clientConfig = (name: string, settings: readonly string[] = []) =>
    ({
      connectionString: hosts.firstUrl,
      application_name: `harborforge-agents ${name}`,
      connectionTimeoutMillis: HANDSHAKE_MS,
      stream: newSocket,
      query_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: 5_000,
      options: [
        "timezone=UTC",
        "jit=off",
        // Whoever waited for a row has to see what its holder wrote. A database may be set to another default.
        "default_transaction_isolation=read\\ committed",
        `statement_timeout=${STATEMENT_TIMEOUT_MS}`,
        `lock_timeout=${LOCK_TIMEOUT_MS}`,
        `idle_in_transaction_session_timeout=${IDLE_IN_TRANSACTION_TIMEOUT_MS}`,
        // The server, too, gives up a peer that no longer answers, and with it the locks that the peer held.
        "tcp_user_timeout=10000",
        ...settings,
      ]
        .map((setting) => `-c ${setting}`)
        .join(" "),
      types: columnTypes,
    }) satisfies pg.ClientConfig;
  const clock = new DatabaseClock();
  const pool = (name: string, max: number, settings: readonly string[] = []): PatientPool => {
    const created = new PatientPool({
      ...clientConfig(name, settings),
      Client,
      max,
      min: 0,
      idleTimeoutMillis: 30_000,
    });
    created.on("error", options.onIdleError);
    created.on("connect", () => clock.forget());
    created.on("release", (error) => {
      if (!error) answered();
      else if (isQueryTimeout(error)) lastTimeoutAt = performance.now();
    });
    return created;
  };
  const beats = pool("beats", 2, ["synchronous_commit=off", ...ONE_PLAN]);
  const commits = pool("commits", 2, ONE_PLAN);
  const feed = pool("feed", 4);
  const reads = pool("reads", 3);
  const knex = knexFactory({
    client: "pg",
    connection: {
      ...clientConfig("api"),
      stream: () => {
        const socket = newSocket();
        endWhenSilent(socket, HANDSHAKE_MS + QUERY_TIMEOUT_MS);
        return socket;
      },
    },
    pool: {
      min: 0,
      max: API_CONNECTIONS,
      acquireTimeoutMillis: CONNECTION_WAIT_MS,
      idleTimeoutMillis: 30_000,
      afterCreate(created: KnexConnection, done: (error: undefined, created: KnexConnection) => void) {
        endWhenSilent(created.connection.stream, QUERY_TIMEOUT_MS + 1_000);
        clock.forget();
        done(undefined, created);
      },
    },
    log: SILENT_LOG,
  });
  // The same class of connections as the pools have: it finds the host that takes writes.
  knex.client.driver = { ...pg, Client };
  knex.on("query-response", answered);
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
    newClient: (name, config) => new Client({ ...clientConfig(name), ...config }),
    async close() {
      hosts.close();
      // A pool waits for the connections that it is making.
      for (const socket of connecting) socket.destroy();
      await Promise.all([beats.end(), commits.end(), feed.end(), reads.end(), knex.destroy()]);
    },
  };
}
