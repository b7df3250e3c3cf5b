import { Socket } from "node:net";
import knexFactory, { type Knex } from "knex";
import pg from "pg";
import { DatabaseClock } from "./clock.ts";
import { columnTypes } from "./column-types.ts";
import { clientClassOf, DatabaseHosts } from "./database-hosts.ts";
import { Turnstile } from "./turnstile.ts";

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
  readonly changes: Turnstile;
  /** The reader of the log, snapshots, and the chores of a replica. */
  readonly feed: pg.Pool;
  readonly clock: DatabaseClock;
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
const CONNECT_TIMEOUT_MS = 3_000;
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

/**
 * Knex keeps a connection whose query timed out, and would give it to the next caller for ever: a peer that went silent
 * tells nobody. What has carried nothing for longer than any query may take is closed instead, idle ones among them.
 */
function socketThatEnds(): Socket {
  const socket = new Socket();
  socket.setTimeout(QUERY_TIMEOUT_MS + 1_000, () => socket.destroy());
  return socket;
}

export function openDatabase(options: DatabaseOptions): Database {
  const hosts = new DatabaseHosts(options.url);
  const Client = clientClassOf(hosts);
  const clientConfig = (name: string, settings: readonly string[] = []) =>
    ({
      connectionString: hosts.firstUrl,
      application_name: `harborforge-agents ${name}`,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
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
  const pool = (name: string, max: number, settings: readonly string[] = []): pg.Pool => {
    const created = new pg.Pool({ ...clientConfig(name, settings), Client, max, min: 0, idleTimeoutMillis: 30_000 });
    created.on("error", options.onIdleError);
    // While a connection is lent out and runs nothing, nobody hears it fail, which would end the process. Its borrower
    // is told by the next statement.
    created.on("connect", (client) => client.on("error", () => undefined));
    return created;
  };
  const beats = pool("beats", 2, ["synchronous_commit=off", ...ONE_PLAN]);
  const commits = pool("commits", 2, ONE_PLAN);
  const feed = pool("feed", 4);
  const reads = pool("reads", 3);
  const apiConfig = { ...clientConfig("api"), stream: socketThatEnds };
  const knex = knexFactory({
    client: "pg",
    connection: hosts.several ? () => writableConnection(hosts, apiConfig) : apiConfig,
    pool: { min: 0, max: API_CONNECTIONS, acquireTimeoutMillis: 5_000, idleTimeoutMillis: 30_000 },
    log: SILENT_LOG,
  });
  return {
    beats,
    commits,
    feed,
    reads,
    knex,
    changes: new Turnstile(API_CHANGES),
    clock: new DatabaseClock(),
    newClient: (name, config) => new Client({ ...clientConfig(name), ...config }),
    async close() {
      await Promise.all([beats.end(), commits.end(), feed.end(), reads.end(), knex.destroy()]);
    },
  };
}

/** What Knex connects with, until the host turns out to be of no use any more. */
async function writableConnection<Config extends object>(hosts: DatabaseHosts, config: Config) {
  const connectionString = hosts.urlOf(await hosts.writable());
  const { generation } = hosts;
  return { ...config, connectionString, expirationChecker: () => hosts.generation !== generation };
}
