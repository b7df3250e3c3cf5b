import type { Duplex } from "node:stream";
import pg from "pg";
import { HANDSHAKE_MS, newSocket } from "./connections.ts";
import { observeStatements, type StatementObserver } from "./statement-observer.ts";

/**
 * While a host has not answered whether it is writable, the others are asked again at this interval, in milliseconds.
 */
const ROUND_MS = 2_000;
/**
 * If a session takes this long to begin, the host may have been replaced: the other hosts are asked, in milliseconds.
 */
const SUSPECT_MS = 3_000;

export interface HostAddress {
  readonly host: string;
  readonly port: number;
}

/** No host of the list is writable. `08001` is the code of PostgreSQL's own library for this. */
class NoWritableHostError extends Error {
  readonly code = "08001";
}

/**
 * The hosts of a `DATABASE_URL`, in the format of PostgreSQL's own library:
 * `postgres://user@one:5432,two:5432/database?target_session_attrs=read-write`. node-postgres supports one host only.
 * This class finds the writable one: the primary, or a promoted standby. It ignores `target_session_attrs`, because
 * this service needs a writable host.
 */
export class DatabaseHosts {
  readonly hosts: readonly HostAddress[];
  readonly #parts: UrlParts;
  #last: HostAddress | undefined;
  #search: Promise<HostAddress> | undefined;
  /** Running checks of hosts, also those that no search waits for. */
  readonly #checks = new Map<HostAddress, HostCheck>();
  /** Connection attempts. They are useless once another host is found to be writable. */
  readonly #attempts = new Set<Attempt>();
  #closed = false;

  constructor(url: string) {
    this.#parts = partsOf(url);
    this.hosts = this.#parts.hosts;
  }

  /** Whether the URL names several hosts. */
  get several(): boolean {
    return this.hosts.length > 1;
  }

  /** The URL with one host, for drivers. */
  urlOf({ host, port }: HostAddress): string {
    const { before, after } = this.#parts;
    return `${before}${host.includes(":") ? `[${host}]` : encodeURIComponent(host)}:${port}${after}`;
  }

  /** The given URL if it names one host; otherwise the URL with the first one. */
  get firstUrl(): string {
    const [first] = this.hosts;
    return this.several && first !== undefined ? this.urlOf(first) : this.#parts.url;
  }

  /**
   * The last known writable host, otherwise the first one that answers that it is.
   *
   * @throws an error with code 08001 if all hosts answered that they are not writable, or are unreachable
   */
  async writable(): Promise<HostAddress> {
    if (this.#last !== undefined) return this.#last;
    this.#search ??= this.#find().finally(() => {
      this.#search = undefined;
    });
    return await this.#search;
  }

  /** Marks a host as failed: the next call of `writable` searches again. */
  forget(host: HostAddress): void {
    if (this.#last === host) this.#last = undefined;
  }

  /**
   * Registers a connection attempt. If it takes long, the other hosts are asked, and the attempt is aborted when
   * another host is writable.
   *
   * @returns a function that unregisters it
   */
  attempt(host: HostAddress, socket: Duplex): () => void {
    const attempt = { host, socket };
    this.#attempts.add(attempt);
    const suspect = setTimeout(() => {
      this.forget(host);
      this.writable().catch(() => undefined);
    }, SUSPECT_MS);
    return () => {
      clearTimeout(suspect);
      this.#attempts.delete(attempt);
    };
  }

  /** Aborts all checks. */
  close(): void {
    this.#closed = true;
    for (const { socket } of this.#checks.values()) socket.destroy();
  }

  async #find(): Promise<HostAddress> {
    while (!this.#closed) {
      const checks = this.hosts.map((host) => this.#ask(host));
      const found = Promise.any(checks.map(({ answer }) => answer));
      let timer: NodeJS.Timeout | undefined;
      const roundIsOver = new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), ROUND_MS);
      });
      try {
        const host = await Promise.race([found, roundIsOver]);
        if (host !== undefined) return host;
      } catch (error) {
        const reasons = checks.map(({ host, failure }) => `${host.host}: ${failure}`);
        throw new NoWritableHostError(`no database host is writable (${reasons.join("; ")})`, { cause: error });
      } finally {
        clearTimeout(timer);
      }
    }
    throw new NoWritableHostError("the search was aborted");
  }

  /** A slow host keeps its running check: a new one would take as long again. */
  #ask(host: HostAddress): HostCheck {
    const underway = this.#checks.get(host);
    if (underway !== undefined) return underway;
    const socket = newSocket();
    const check: HostCheck = { host, socket, failure: undefined, answer: this.#check(host, socket) };
    this.#checks.set(host, check);
    check.answer
      .then(
        () => this.#found(host),
        (error: unknown) => {
          check.failure = error instanceof Error ? error.message : String(error);
        },
      )
      .finally(() => {
        socket.destroy();
        this.#checks.delete(host);
      });
    return check;
  }

  async #check(host: HostAddress, socket: Duplex): Promise<HostAddress> {
    const client = new pg.Client({
      connectionString: this.urlOf(host),
      application_name: "harborforge-agents probe",
      connectionTimeoutMillis: HANDSHAKE_MS,
      query_timeout: HANDSHAKE_MS,
      stream: () => socket,
    });
    client.on("error", () => undefined);
    await client.connect();
    if (await isReadOnly(client)) throw readOnly(host);
    return host;
  }

  #found(host: HostAddress): void {
    this.#last = host;
    // The other checks are no longer needed.
    for (const { host: other, socket } of this.#checks.values()) if (other !== host) socket.destroy();
    for (const attempt of this.#attempts) if (attempt.host !== host) attempt.socket.destroy();
  }
}

interface HostCheck {
  readonly host: HostAddress;
  readonly socket: Duplex;
  /** Why the host is not writable, once known. */
  failure: string | undefined;
  readonly answer: Promise<HostAddress>;
}

interface Attempt {
  readonly host: HostAddress;
  readonly socket: Duplex;
}

async function isReadOnly(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ transaction_read_only: string }>("SHOW transaction_read_only");
  return rows[0]?.transaction_read_only !== "off";
}

function readOnly({ host, port }: HostAddress): Error {
  // The code of a write on a standby.
  return Object.assign(new Error(`${host}:${port} is a standby`), { code: "25006" });
}

type ConnectCallback = ((error: Error) => void) | ((error: null, client: pg.Client) => void);

/**
 * The driver's client class, which connects to the writable host.
 *
 * @param connecting gets the sockets of connection attempts, so that their owner can abort them
 */
export function clientClassOf(
  hosts: DatabaseHosts,
  connecting: Set<Duplex>,
  observe: StatementObserver,
): typeof pg.Client {
  return class ServiceClient extends pg.Client {
    constructor(config?: string | pg.ClientConfig) {
      super(config);
      // Without a listener, the process would end if the connection fails while it is idle or lent out. The next
      // statement fails instead.
      this.on("error", () => undefined);
      destroyOnBrokenProtocol(this.connection);
      observeStatements(this, observe);
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

    async #connect(): Promise<pg.Client> {
      const { stream } = this.connection;
      connecting.add(stream);
      try {
        if (hosts.several) await this.#connectToWritable();
        else await super.connect();
        return this;
      } finally {
        connecting.delete(stream);
      }
    }

    async #connectToWritable(): Promise<void> {
      const host = await hosts.writable();
      const { stream } = this.connection;
      const settled = hosts.attempt(host, stream);
      try {
        if (stream.destroyed) throw new NoWritableHostError("the connection was aborted before a host was found");
        Object.assign(this, host);
        await super.connect();
        // The host may have become a standby since the check.
        if (await isReadOnly(this)) throw readOnly(host);
      } catch (error) {
        hosts.forget(host);
        this.end().catch(() => undefined);
        throw error;
      } finally {
        settled();
      }
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

/**
 * The URL of the writable host, for tools that accept one host only.
 *
 * @throws an error with code 08001 if none of several hosts is writable
 */
export async function writableUrl(url: string): Promise<string> {
  const hosts = new DatabaseHosts(url);
  return hosts.several ? hosts.urlOf(await hosts.writable()) : url;
}

interface UrlParts {
  readonly url: string;
  /** Scheme, user and password, with the @. */
  readonly before: string;
  readonly hosts: readonly HostAddress[];
  /** Database and parameters. */
  readonly after: string;
}

const DEFAULT_PORT = 5_432;

function partsOf(url: string): UrlParts {
  const [, scheme = "", authority = "", path = "", query = ""] =
    /^(postgres(?:ql)?:\/\/)([^/?#]*)([^?#]*)(?:\?([^#]*))?/.exec(url) ?? [];
  const parameters = query.split("&").filter((parameter) => parameter !== "");
  const parameterOf = (name: string) =>
    parameters.find((parameter) => parameter.startsWith(`${name}=`))?.slice(name.length + 1);
  // A password may contain an unencoded @: the last one separates.
  const separator = authority.lastIndexOf("@") + 1;
  const names = (parameterOf("host") ?? authority.slice(separator)).split(/,|%2c/i);
  const ports = parameterOf("port")?.split(/,|%2c/i) ?? [];
  const hosts = names.map((name, place) => {
    const [, bracketed, plain = "", port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(name) ?? [];
    const given = port ?? ports[place] ?? (ports.length === 1 ? ports[0] : undefined);
    return { host: bracketed ?? decodeURIComponent(plain), port: given ? Number(given) : DEFAULT_PORT };
  });
  const rest = parameters.filter(
    (parameter) => !/^(host|port|target_session_attrs|load_balance_hosts)=/.test(parameter),
  );
  return {
    url,
    before: `${scheme}${authority.slice(0, separator)}`,
    hosts,
    after: `${path}${rest.length > 0 ? "?" : ""}${rest.join("&")}`,
  };
}
