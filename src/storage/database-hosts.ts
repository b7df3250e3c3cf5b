import type { Duplex } from "node:stream";
import pg from "pg";
import { HANDSHAKE_MS, newSocket } from "./connections.ts";

/** While some host has not said yet whether it takes writes, those that do not are asked again so often. */
const ROUND_MS = 2_000;
/** A host that takes so long to begin a session may have been replaced: the others are asked meanwhile. */
const DOUBT_MS = 3_000;

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
  /** Questions that are under way, whether a search waits for them or not. */
  readonly #questions = new Map<HostAddress, Question>();
  /** Connections that are being made, which are of no use where another host takes writes. */
  readonly #attempts = new Set<Attempt>();
  #closed = false;

  constructor(url: string) {
    this.#parts = partsOf(url);
    this.hosts = this.#parts.hosts;
  }

  /** Whether there is a choice. */
  get several(): boolean {
    return this.hosts.length > 1;
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
   * @throws an error of code 08001 when every host has said that it does not, or could not be reached
   */
  async writable(): Promise<HostAddress> {
    if (this.#last !== undefined) return this.#last;
    this.#search ??= this.#find().finally(() => {
      this.#search = undefined;
    });
    return await this.#search;
  }

  /** The host failed: the next who asks looks anew. */
  forget(host: HostAddress): void {
    if (this.#last === host) this.#last = undefined;
  }

  /**
   * Notes a connection to a host that is being made. Where that takes long the others are asked, and the connection is
   * broken off when another host turns out to take writes. Returns what ends that.
   */
  attempt(host: HostAddress, socket: Duplex): () => void {
    const attempt = { host, socket };
    this.#attempts.add(attempt);
    const doubt = setTimeout(() => {
      this.forget(host);
      this.writable().catch(() => undefined);
    }, DOUBT_MS);
    return () => {
      clearTimeout(doubt);
      this.#attempts.delete(attempt);
    };
  }

  /** Breaks off what is under way. */
  close(): void {
    this.#closed = true;
    for (const { socket } of this.#questions.values()) socket.destroy();
  }

  async #find(): Promise<HostAddress> {
    while (!this.#closed) {
      const questions = this.hosts.map((host) => this.#ask(host));
      const found = Promise.any(questions.map(({ answer }) => answer));
      let timer: NodeJS.Timeout | undefined;
      const roundIsOver = new Promise<undefined>((resolve) => {
        timer = setTimeout(() => resolve(undefined), ROUND_MS);
      });
      try {
        const host = await Promise.race([found, roundIsOver]);
        if (host !== undefined) return host;
      } catch (error) {
        const said = questions.map(({ host, failure }) => `${host.host}: ${failure}`);
        throw new NoWritableHostError(`no host of the database takes writes (${said.join("; ")})`, { cause: error });
      } finally {
        clearTimeout(timer);
      }
    }
    throw new NoWritableHostError("the search was broken off");
  }

  /** A host that is slow to answer is not asked again from the beginning, which would take as long again. */
  #ask(host: HostAddress): Question {
    const underway = this.#questions.get(host);
    if (underway !== undefined) return underway;
    const socket = newSocket();
    const question: Question = { host, socket, failure: undefined, answer: this.#question(host, socket) };
    this.#questions.set(host, question);
    question.answer
      .then(
        () => this.#found(host),
        (error: unknown) => {
          question.failure = error instanceof Error ? error.message : String(error);
        },
      )
      .finally(() => {
        socket.destroy();
        this.#questions.delete(host);
      });
    return question;
  }

  async #question(host: HostAddress, socket: Duplex): Promise<HostAddress> {
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
    // The answers of the others are of no interest any more.
    for (const { host: other, socket } of this.#questions.values()) if (other !== host) socket.destroy();
    for (const attempt of this.#attempts) if (attempt.host !== host) attempt.socket.destroy();
  }
}

interface Question {
  readonly host: HostAddress;
  readonly socket: Duplex;
  /** Why the host is of no use, once that is known. */
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
  // The code of a write that a standby refuses.
  return Object.assign(new Error(`${host}:${port} is a standby`), { code: "25006" });
}

type ConnectCallback = ((error: Error) => void) | ((error: null, client: pg.Client) => void);

/**
 * The driver's client, connecting to whichever of several hosts takes writes at that moment.
 *
 * @param connecting holds the sockets of the connections that are being made, so that their owner can break them off
 */
export function clientClassOf(hosts: DatabaseHosts, connecting: Set<Duplex>): typeof pg.Client {
  return class ServiceClient extends pg.Client {
    constructor(config?: string | pg.ClientConfig) {
      super(config);
      // Without a listener, node-postgres would end the process if the connection fails just after it was made, or while
      // it is lent out and runs nothing. The next statement on it fails, which tells its user.
      this.on("error", () => undefined);
      endBrokenProtocol(this.connection);
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
        if (stream.destroyed) throw new NoWritableHostError("the connection was given up before a host was found");
        Object.assign(this, host);
        await super.connect();
        // It may have become one since it was asked.
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

/** Of node-postgres's connection: begins to read a socket. */
interface Reading {
  attachListeners(stream: Duplex): void;
}

/**
 * node-postgres throws what it cannot parse at the socket, where nobody catches it and the process ends. A peer that
 * speaks something else than PostgreSQL loses its connection instead.
 */
function endBrokenProtocol(connection: pg.Connection): void {
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
        stream.destroy(new Error("the database does not speak PostgreSQL's protocol", { cause: error }));
      }
    });
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
