import type { Duplex } from "node:stream";
import pg from "pg";
import { HANDSHAKE_MS } from "./connections.ts";
import { type DatabaseHosts, type HostAddress, NoWritableHostError, readOnlyError } from "./database-hosts.ts";
import { Session, type SessionFacts, type SessionSettings } from "./session.ts";
import { observeStatements, type StatementObserver } from "./statement-observer.ts";

/** How long a session counts as unchanged before the next statement of its connection checks it, in milliseconds. */
const CHECK_MS = 1_000;
/** A write was rejected, because the session, the database or the server is read-only. */
const READ_ONLY = "25006";

export interface ServiceClientOptions {
  readonly hosts: DatabaseHosts;
  /** Besides those of all sessions, or instead of them. */
  readonly settings: SessionSettings;
  /** Gets the sockets of connection attempts, so that their owner can abort them. */
  readonly connecting?: Set<Duplex>;
  /** Observes the statements. Default: nothing does. */
  readonly observe?: StatementObserver;
  /** The server failed a statement, or rejected a connection, with this SQLSTATE. */
  onServerError?(code: string): void;
  /** A connection was closed, because it had another session than the one that it began. */
  onSessionLost?(): void;
}

type ConnectCallback = ((error: Error) => void) | ((error: null, client: pg.Client) => void);

/**
 * The driver's client with a session of this service. It connects to the writable host, sets the session's settings, and
 * checks them about once a second while it is in use.
 */
export class ServiceClient extends pg.Client {
  readonly #options: ServiceClientOptions;
  readonly #session: Session;
  #facts: SessionFacts | undefined;
  #checkedAt = Number.NEGATIVE_INFINITY;
  #isIdle = false;
  #isObsolete = false;

  constructor(config: string | pg.ClientConfig | undefined, options: ServiceClientOptions) {
    super(config);
    this.#options = options;
    // The name at the start of the connection, which the URL may give. A pooler may use another one for its own connection.
    const name: unknown = Reflect.get(this.#parameters, "application_name");
    this.#session = new Session((text) => this.#send(text), {
      ...(typeof name === "string" ? { application_name: name } : {}),
      ...options.settings,
    });
    // Without a listener, the process would end if the connection fails while it is idle or lent out. The next
    // statement fails instead.
    this.on("error", () => undefined);
    destroyOnBrokenProtocol(this.connection);
    this.#observe(this.connection);
    // An own property, because the pool, Knex and this service call `query` in all its forms.
    Object.defineProperty(this, "query", {
      configurable: true,
      writable: true,
      value: (...parameters: unknown[]): unknown => {
        this.#checkSession();
        this.#isIdle = false;
        return Reflect.apply(pg.Client.prototype.query, this, parameters);
      },
    });
    if (options.observe !== undefined) observeStatements(this, options.observe);
  }

  /** What the session found at its start. */
  get facts(): SessionFacts {
    if (this.#facts === undefined) throw new TypeError("the session has not begun");
    return this.#facts;
  }

  override connect(): Promise<pg.Client>;
  override connect(callback: ConnectCallback): void;
  override connect(callback?: ConnectCallback): Promise<pg.Client> | undefined {
    const connected = this.#connect();
    if (callback === undefined) return connected;
    connected.then(
      () => Reflect.apply(callback, undefined, [null, this]),
      (error: unknown) => Reflect.apply(callback, undefined, [error]),
    );
    return undefined;
  }

  /** Whether the connection still has the session that it began. Sets the settings again. */
  async hasItsSession(): Promise<boolean> {
    return await this.#session.check();
  }

  async #connect(): Promise<pg.Client> {
    const { hosts, connecting } = this.#options;
    const { stream } = this.connection;
    connecting?.add(stream);
    let host: HostAddress | undefined;
    let settled: (() => void) | undefined;
    try {
      await this.#takeLatestCredentials();
      if (hosts.several) {
        host = await hosts.writable();
        settled = hosts.attempt(host, stream);
        Object.assign(this, host);
      }
      if (stream.destroyed) throw new NoWritableHostError("the connection was aborted before it began");
      await super.connect();
      this.#facts = await this.#session.begin();
      // The host may have become a standby since the check.
      const { readOnly } = this.#facts;
      if (host !== undefined && readOnly !== null) throw readOnlyError(readOnly, host);
      this.#checkedAt = performance.now();
      return this;
    } catch (error) {
      if (host !== undefined) hosts.forget(host);
      this.end().catch(() => undefined);
      throw error;
    } finally {
      settled?.();
      connecting?.delete(stream);
    }
  }

  /** A password may change while the service runs. */
  async #takeLatestCredentials(): Promise<void> {
    const { user, password } = await this.#options.hosts.credentials();
    // node-postgres sends the user of the parameters, not of the client.
    if (user !== undefined) Reflect.set(this.#parameters, "user", user);
    if (password !== undefined) this.password = password;
  }

  /** What node-postgres read from the URL, the configuration and the environment. */
  get #parameters(): object {
    const parameters: unknown = Reflect.get(this, "connectionParameters");
    return typeof parameters === "object" && parameters !== null ? parameters : {};
  }

  #send<Row extends object>(text: string): Promise<pg.QueryResult<Row>> {
    this.#isIdle = false;
    const query = { text, ...(this.#facts === undefined ? { query_timeout: HANDSHAKE_MS } : {}) };
    return super.query<Row>(query);
  }

  #observe(connection: pg.Connection): void {
    connection.on("errorMessage", (error: { readonly code?: string }) => {
      if (error.code === undefined) return;
      if (error.code === READ_ONLY) this.#isObsolete = true;
      this.#options.onServerError?.(error.code);
    });
    connection.on("readyForQuery", ({ status }: { readonly status: string }) => {
      this.#isIdle = status === "I";
      // A new connection may find the host, or the default of the database, writable again.
      if (this.#isIdle && this.#isObsolete) setImmediate(() => connection.stream.destroy());
    });
  }

  /** The check is sent before the statement that comes next, and does not delay it by more than a round trip. */
  #checkSession(): void {
    if (!this.#isIdle || performance.now() - this.#checkedAt < CHECK_MS) return;
    this.#checkedAt = performance.now();
    this.#session.check().then(
      (isUnchanged) => {
        if (isUnchanged) return;
        this.#options.onSessionLost?.();
        const error = new Error("the connection has another session than the one that it began");
        // The code of a failed connection.
        this.connection.stream.destroy(Object.assign(error, { code: "08006" }));
      },
      // The next statement fails for the same reason.
      () => undefined,
    );
  }
}

/** The class for pools, which construct their clients themselves. */
export function clientClassOf(options: ServiceClientOptions): typeof pg.Client {
  return class extends ServiceClient {
    constructor(config?: string | pg.ClientConfig) {
      super(config, options);
    }
  };
}

/** A method of node-postgres's connection: it starts to read a socket. */
interface Reading {
  attachListeners(stream: Duplex): void;
}

/**
 * node-postgres throws parse errors in a socket listener, which would end the process. Destroy the connection instead
 * if the peer does not speak PostgreSQL's protocol.
 */
function destroyOnBrokenProtocol(connection: pg.Connection): void {
  const reading = connection as pg.Connection & Reading;
  const attach = reading.attachListeners.bind(connection);
  reading.attachListeners = (stream) => {
    attach(stream);
    const parse = stream.listeners("data").at(-1);
    if (parse === undefined) return;
    stream.removeAllListeners("data");
    stream.on("data", (bytes: Buffer) => {
      try {
        Reflect.apply(parse, stream, [bytes]);
      } catch (error) {
        stream.destroy(new Error("the peer does not speak PostgreSQL's protocol", { cause: error }));
      }
    });
  };
}
