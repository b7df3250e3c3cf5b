import type { Duplex } from "node:stream";
import pg from "pg";
import { HANDSHAKE_MS, newSocket } from "./connections.ts";

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

export interface DatabaseHostsOptions {
  /** The URL as it is now, if its user or password may change. Its hosts do not change. */
  readonly latestUrl?: (() => Promise<string>) | undefined;
  /** A host rejected a check with this SQLSTATE. */
  onServerError?(code: string): void;
}

export interface Credentials {
  readonly user: string | undefined;
  readonly password: string | undefined;
}

/** No host of the list is writable. `08001` is the code of PostgreSQL's own library for this. */
export class NoWritableHostError extends Error {
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
  readonly #options: DatabaseHostsOptions;
  #parts: UrlParts;
  #last: HostAddress | undefined;
  #search: Promise<HostAddress> | undefined;
  /** Running checks of hosts, also those that no search waits for. */
  readonly #checks = new Map<HostAddress, HostCheck>();
  /** Connection attempts. They are useless once another host is found to be writable. */
  readonly #attempts = new Set<Attempt>();
  #closed = false;

  constructor(url: string, options: DatabaseHostsOptions = {}) {
    this.#parts = partsOf(url);
    this.#options = options;
    this.hosts = this.#parts.hosts;
  }

  /**
   * The user and the password as they are now, if they may change. A URL that cannot be read, e.g. because its file is
   * being replaced, changes nothing.
   */
  async credentials(): Promise<Credentials> {
    const { latestUrl } = this.#options;
    if (latestUrl === undefined) return { user: undefined, password: undefined };
    const url = await latestUrl().catch(() => undefined);
    if (url !== undefined) this.#parts = { ...this.#parts, before: partsOf(url).before };
    return credentialsOf(this.#parts.before);
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
    await this.credentials();
    const client = new pg.Client({
      connectionString: this.urlOf(host),
      application_name: "harborforge-agents probe",
      connectionTimeoutMillis: HANDSHAKE_MS,
      query_timeout: HANDSHAKE_MS,
      stream: () => socket,
    });
    client.on("error", () => undefined);
    client.connection.on("errorMessage", ({ code }: { readonly code?: string }) => {
      if (code !== undefined) this.#options.onServerError?.(code);
    });
    await client.connect();
    const reason = await readOnlyReason(client);
    if (reason !== null) throw readOnlyError(reason, host);
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

/**
 * SQL: why the server or the database rejects writes of every session; null if it does not. A default of the role alone is
 * no reason: the sessions of this service override it.
 */
export const READ_ONLY_REASON = `
  CASE WHEN pg_is_in_recovery() THEN 'it is a standby' WHEN current_setting('default_transaction_read_only') = 'on' THEN (
    SELECT 'default_transaction_read_only is on' FROM pg_settings
    WHERE name = 'default_transaction_read_only' AND source NOT IN ('user', 'database user', 'client', 'session')
  ) END`;

async function readOnlyReason(client: pg.ClientBase): Promise<string | null> {
  const { rows } = await client.query<{ reason: string | null }>(`SELECT ${READ_ONLY_REASON} AS reason`);
  return rows[0]?.reason ?? null;
}

/** With the code of a write that PostgreSQL rejects. */
export function readOnlyError(reason: string, host?: HostAddress): Error {
  const where = host === undefined ? "" : `${host.host}:${host.port}: `;
  return Object.assign(new Error(`${where}${reason}`), { code: "25006" });
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

/** @param before the part of a URL that ends with the @ */
function credentialsOf(before: string): Credentials {
  const [, user, password] = /^[^/]*\/\/([^:]*)(?::(.*))?@$/s.exec(before) ?? [];
  return { user: user ? decoded(user) : undefined, password: password ? decoded(password) : undefined };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
