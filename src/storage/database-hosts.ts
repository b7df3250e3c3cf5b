import { Socket } from "node:net";
import pg from "pg";

/** How long a host has to say whether it takes writes. Less than a pool waits for a connection. */
const PROBE_MS = 2_000;

export interface HostAddress {
  readonly host: string;
  readonly port: number;
}

/** No host of the list takes writes at this moment; `08001` is what PostgreSQL's own library says then. */
class NoWritableHostError extends Error {
  readonly code = "08001";
}

/**
 * The hosts of a `DATABASE_URL`, in the form that PostgreSQL's own library takes:
 * `postgres://user@one:5432,two:5432/database?target_session_attrs=read-write`. node-postgres knows one host, so this
 * finds the one that takes writes: a primary that was not demoted, or the standby that took its place. Whatever
 * `target_session_attrs` says, nothing else is of use to this service.
 */
export class DatabaseHosts {
  readonly hosts: readonly HostAddress[];
  readonly #parts: UrlParts;
  #last: HostAddress | undefined;
  #search: Promise<HostAddress> | undefined;
  #generation = 0;

  constructor(url: string) {
    this.#parts = partsOf(url);
    this.hosts = this.#parts.hosts;
  }

  /** Whether there is a choice. */
  get several(): boolean {
    return this.hosts.length > 1;
  }

  /** Changes when a host turned out to be of no use any more. */
  get generation(): number {
    return this.#generation;
  }

  /** The URL with one of the hosts, as drivers understand it. */
  urlOf({ host, port }: HostAddress): string {
    const { before, after } = this.#parts;
    return `${before}${host.includes(":") ? `[${host}]` : encodeURIComponent(host)}:${port}${after}`;
  }

  /** The URL as it was given where it names one host; with the first of several. */
  get firstUrl(): string {
    const [first] = this.hosts;
    return this.several && first !== undefined ? this.urlOf(first) : this.#parts.url;
  }

  /**
   * The host that took writes when last seen, else the first one that answers that it does.
   *
   * @throws an error of code 08001 when none does within two seconds
   */
  async writable(): Promise<HostAddress> {
    if (this.#last !== undefined) return this.#last;
    this.#search ??= this.#find().finally(() => {
      this.#search = undefined;
    });
    this.#last = await this.#search;
    return this.#last;
  }

  /** The host failed: the next who asks looks anew. */
  forget(host: HostAddress): void {
    if (this.#last !== host) return;
    this.#last = undefined;
    this.#generation += 1;
  }

  async #find(): Promise<HostAddress> {
    const sockets: Socket[] = [];
    try {
      return await Promise.any(this.hosts.map((host) => this.#probe(host, sockets)));
    } catch (error) {
      const why = error instanceof AggregateError ? error.errors : [error];
      const said = why.map((one, place) => `${this.hosts[place]?.host}: ${one instanceof Error ? one.message : one}`);
      throw new NoWritableHostError(`no host of the database takes writes (${said.join("; ")})`, { cause: error });
    } finally {
      // The answers of the others are of no interest any more.
      for (const socket of sockets) socket.destroy();
    }
  }

  async #probe(host: HostAddress, sockets: Socket[]): Promise<HostAddress> {
    const socket = new Socket();
    sockets.push(socket);
    const client = new pg.Client({
      connectionString: this.urlOf(host),
      application_name: "harborforge-agents probe",
      connectionTimeoutMillis: PROBE_MS,
      query_timeout: PROBE_MS,
      stream: () => socket,
    });
    client.on("error", () => undefined);
    await client.connect();
    if (await isReadOnly(client)) throw readOnly(host);
    return host;
  }
}

async function isReadOnly(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ transaction_read_only: string }>("SHOW transaction_read_only");
  return rows[0]?.transaction_read_only !== "off";
}

function readOnly({ host, port }: HostAddress): Error {
  // The code of a write that a standby refuses.
  return Object.assign(new Error(`${host}:${port} is a standby`), { code: "25006" });
}

type ConnectCallback = ((error: Error) => void) | ((error: null, client: pg.Client) => void);

/** The driver's client, connecting to whichever host takes writes at that moment; the driver's own for a single host. */
export function clientClassOf(hosts: DatabaseHosts): typeof pg.Client {
  if (!hosts.several) return pg.Client;
  return class WritableClient extends pg.Client {
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
      const host = await hosts.writable();
      try {
        const { stream } = this.connection;
        if (stream.destroyed) throw new NoWritableHostError("the connection was given up before a host was found");
        Object.assign(this, host);
        await super.connect();
        // It may have become one since it was asked.
        if (await isReadOnly(this)) throw readOnly(host);
        return this;
      } catch (error) {
        hosts.forget(host);
        this.end().catch(() => undefined);
        throw error;
      }
    }
  };
}

/**
 * A URL of one host, for tools that know no lists: of the one that takes writes now.
 *
 * @throws an error of code 08001 when none of several does
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
  // A password may hold an @ that somebody forgot to encode: the last one separates.
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
