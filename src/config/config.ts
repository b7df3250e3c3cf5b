import { resolve } from "node:path";
import { ACCESS_SETTINGS, type AccessChoice, accessOf, exposed, unasked } from "./access.ts";
import { address, duration, type Facts, oneOf, type Setting, wholeNumber } from "./setting.ts";
import { type Address, isDatabaseUrl } from "./values.ts";

export type { Setting } from "./setting.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const CLIENT_CERT = ["none", "optional", "required"] as const;
const LOG_FORMATS = ["auto", "pretty", "json"] as const;

/** The PostgreSQL to use: somebody else's, or the embedded one with its data in a folder. */
export type DatabaseChoice =
  | { readonly kind: "external"; readonly url: string }
  /** `dataDir` undefined: the data folder of the embedded PostgreSQL by default. */
  | { readonly kind: "embedded"; readonly dataDir: string | undefined };

/** TLS of both listeners: paths of PEM files. */
export interface TlsChoice {
  readonly certFile: string;
  readonly keyFile: string;
  /** Set unless `clientCert` is `none`. */
  readonly clientCaFile: string | undefined;
  readonly clientCert: (typeof CLIENT_CERT)[number];
}

/** The whole configuration; durations in milliseconds. */
export interface Config {
  readonly database: DatabaseChoice;
  readonly grpcAddress: Address;
  readonly httpAddress: Address;
  /** The shortest interval given to agents. */
  readonly heartbeatIntervalMs: number;
  /** What the deployment wants to bear; the interval grows with the fleet to keep to it. */
  readonly heartbeatsPerSecond: number;
  /** How long a new agent may wait with its first heartbeat. */
  readonly firstLeaseMs: number;
  /** How long transitions are kept, and how many of the newest: what first allows a partition of the log to go. */
  readonly transitionRetentionMs: number;
  readonly transitionLimit: number;
  /** How old a watch stream gets, by and large. */
  readonly watchMaxAgeMs: number;
  /** Undefined: the listeners speak in cleartext. */
  readonly tls: TlsChoice | undefined;
  /** Connections of both listeners together, and new ones a second from one address. */
  readonly maxConnections: number;
  readonly connectionsPerSecond: number;
  /** Calls that a caller may begin a second, and streams that it may have open. */
  readonly requestsPerSecond: number;
  readonly streamsPerCaller: number;
  /** Whether anybody may ask for the contract by gRPC server reflection. */
  readonly reflection: boolean;
  /** Who is let in. */
  readonly access: AccessChoice;
  readonly logLevel: LogLevel;
  readonly logFormat: "pretty" | "json";
  /** How long a stop waits for calls and streams to end by themselves. */
  readonly drainGraceMs: number;
}

const DATABASE_URL: Setting<string | undefined> = {
  env: "DATABASE_URL",
  flag: "database-url",
  placeholder: "<url>",
  description: "the PostgreSQL database (15 to 18) to use",
  defaultText: "an embedded PostgreSQL",
  fallback: undefined,
  allowed: "a URL such as postgres://user:password@host:5432/database; several hosts are separated by commas",
  secret: true,
  parse: (text) => (isDatabaseUrl(text) ? text : undefined),
};

const DATA_DIR: Setting<string | undefined> = {
  env: "HARBORFORGE_DATA_DIR",
  flag: "data-dir",
  placeholder: "<folder>",
  description: "the data folder of the embedded PostgreSQL",
  defaultText:
    "$XDG_DATA_HOME/harborforge-agents, else ~/.local/share/harborforge-agents; for root /var/lib/harborforge-agents if another user cannot enter that",
  fallback: undefined,
  allowed: "the path of a folder, without control characters",
  secret: false,
  parse: (text) => (text === "" || /\p{Cc}/u.test(text) ? undefined : resolve(text)),
};

function file(facts: Omit<Facts, "placeholder" | "defaultText">): Setting<string | undefined> {
  return {
    ...facts,
    placeholder: "<file>",
    defaultText: "none",
    fallback: undefined,
    allowed: "the path of a PEM file, without control characters",
    secret: false,
    parse: (text) => (text === "" || /\p{Cc}/u.test(text) ? undefined : resolve(text)),
  };
}

/** Every setting there is. `--help` is printed from it, and the parsers that it names are the only ones. */
export const SETTINGS = {
  databaseUrl: DATABASE_URL,
  dataDir: DATA_DIR,
  grpcAddress: address({
    env: "HARBORFORGE_GRPC_ADDRESS",
    flag: "grpc-address",
    placeholder: "<host:port>",
    description: "the address of the gRPC listener",
    defaultText: "127.0.0.1:50051",
    fallback: { host: "127.0.0.1", port: 50_051 },
  }),
  httpAddress: address({
    env: "HARBORFORGE_HTTP_ADDRESS",
    flag: "http-address",
    placeholder: "<host:port>",
    description: "the address of the Connect listener: Connect, gRPC-Web, gRPC and plain HTTP",
    defaultText: "127.0.0.1:8080",
    fallback: { host: "127.0.0.1", port: 8_080 },
  }),
  heartbeatInterval: duration(
    {
      env: "HARBORFORGE_HEARTBEAT_INTERVAL",
      flag: "heartbeat-interval",
      placeholder: "<duration>",
      description:
        "the shortest time between two heartbeats of an agent; a lease is three intervals, and below 200ms it is too short to detect an outage in time",
      defaultText: "10s",
      fallback: 10_000,
    },
    100,
    10 * 60_000,
  ),
  heartbeatsPerSecond: wholeNumber(
    {
      env: "HARBORFORGE_HEARTBEATS_PER_SECOND",
      flag: "heartbeats-per-second",
      placeholder: "<number>",
      description: "target heartbeats per second of the deployment; the interval grows with the fleet",
      defaultText: "10000",
      fallback: 10_000,
    },
    1,
    1_000_000,
  ),
  firstLease: duration(
    {
      env: "HARBORFORGE_FIRST_LEASE",
      flag: "first-lease",
      placeholder: "<duration>",
      description: "the lease of a new agent, until its first heartbeat",
      defaultText: "60s",
      fallback: 60_000,
    },
    100,
    24 * 3_600_000,
  ),
  transitionRetention: duration(
    {
      env: "HARBORFORGE_TRANSITION_RETENTION",
      flag: "transition-retention",
      placeholder: "<duration>",
      description:
        "how long transitions are kept; they are removed in partitions of a million, so some are kept longer",
      defaultText: "168h",
      fallback: 7 * 24 * 3_600_000,
    },
    1_000,
    10 * 365 * 24 * 3_600_000,
  ),
  transitionLimit: wholeNumber(
    {
      env: "HARBORFORGE_TRANSITION_LIMIT",
      flag: "transition-limit",
      placeholder: "<number>",
      description: "how many of the newest transitions are kept, even if older ones are younger than the retention",
      defaultText: "10000000",
      fallback: 10_000_000,
    },
    1,
    1_000_000_000_000,
  ),
  watchMaxAge: duration(
    {
      env: "HARBORFORGE_WATCH_MAX_AGE",
      flag: "watch-max-age",
      placeholder: "<duration>",
      description: "the maximum age of a watch stream, ± a quarter; then the client resumes it, on any replica",
      defaultText: "30m",
      fallback: 30 * 60_000,
    },
    1_000,
    24 * 3_600_000,
  ),
  tlsCertFile: file({
    env: "HARBORFORGE_TLS_CERT_FILE",
    flag: "tls-cert-file",
    description: "the certificate of both listeners, with its intermediate certificates; it turns TLS on",
  }),
  tlsKeyFile: file({
    env: "HARBORFORGE_TLS_KEY_FILE",
    flag: "tls-key-file",
    description: "the private key of the certificate, without a passphrase",
  }),
  tlsClientCaFile: file({
    env: "HARBORFORGE_TLS_CLIENT_CA_FILE",
    flag: "tls-client-ca-file",
    description: "the authorities that sign the certificates of clients",
  }),
  tlsClientCert: oneOf(
    {
      env: "HARBORFORGE_TLS_CLIENT_CERT",
      flag: "tls-client-cert",
      placeholder: "<when>",
      description: "whether clients are asked for a certificate, and whether a client without one may connect",
      defaultText: "none",
      fallback: "none",
    },
    CLIENT_CERT,
  ),
  maxConnections: wholeNumber(
    {
      env: "HARBORFORGE_MAX_CONNECTIONS",
      flag: "max-connections",
      placeholder: "<number>",
      description: "maximum connections of both listeners together; further ones are closed at once",
      defaultText: "50000",
      fallback: 50_000,
    },
    1,
    1_000_000,
  ),
  connectionsPerSecond: wholeNumber(
    {
      env: "HARBORFORGE_CONNECTIONS_PER_SECOND",
      flag: "connections-per-second",
      placeholder: "<number>",
      description:
        "maximum new connections a second from one address, and twice as many at once; further ones are closed at once",
      defaultText: "500",
      fallback: 500,
    },
    1,
    1_000_000,
  ),
  requestsPerSecond: wholeNumber(
    {
      env: "HARBORFORGE_REQUESTS_PER_SECOND",
      flag: "requests-per-second",
      placeholder: "<number>",
      description: "maximum calls a second of one caller, and twice as many at once; messages on streams do not count",
      defaultText: "20000",
      fallback: 20_000,
    },
    1,
    1_000_000,
  ),
  streamsPerCaller: wholeNumber(
    {
      env: "HARBORFORGE_STREAMS_PER_CALLER",
      flag: "streams-per-caller",
      placeholder: "<number>",
      description: "maximum open streams of one caller",
      defaultText: "100000",
      fallback: 100_000,
    },
    1,
    1_000_000,
  ),
  reflection: oneOf(
    {
      env: "HARBORFORGE_REFLECTION",
      flag: "reflection",
      placeholder: "<on|off>",
      description: "whether both listeners serve gRPC server reflection",
      defaultText: "on",
      fallback: "on",
    },
    ["on", "off"],
  ),
  logLevel: oneOf(
    {
      env: "HARBORFORGE_LOG_LEVEL",
      flag: "log-level",
      placeholder: "<level>",
      description: "the lowest level of log lines",
      defaultText: "info",
      fallback: "info",
    },
    LOG_LEVELS,
  ),
  logFormat: oneOf(
    {
      env: "HARBORFORGE_LOG_FORMAT",
      flag: "log-format",
      placeholder: "<format>",
      description: "the format of the log",
      defaultText: "auto: pretty on a terminal, else json",
      fallback: "auto",
    },
    LOG_FORMATS,
  ),
  drainGrace: duration(
    {
      env: "HARBORFORGE_DRAIN_GRACE",
      flag: "drain-grace",
      placeholder: "<duration>",
      description: "how long a stop waits for open calls and streams",
      defaultText: "10s",
      fallback: 10_000,
    },
    0,
    5 * 60_000,
  ),
  ...ACCESS_SETTINGS,
};

/** One wrong value. `value` is undefined for a secret. */
export interface ConfigProblem {
  /** The environment variable, or the flag with its dashes: what has to be changed. */
  readonly name: string;
  readonly value: string | undefined;
  readonly allowed: string;
  /** What is wrong, where that is more than one value. */
  readonly sentence?: string;
}

/** The configuration cannot be used. Its message names every setting that is wrong, on a line each. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(sentenceOf).join("\n"));
    this.problems = problems;
  }
}

const LONGEST_SHOWN_VALUE = 100;

function sentenceOf({ name, value, allowed, sentence }: ConfigProblem): string {
  if (sentence !== undefined) return sentence;
  if (value === undefined) return `${name} is wrong (its value is not shown): it must be ${allowed}.`;
  const shown = value.length > LONGEST_SHOWN_VALUE ? `${value.slice(0, LONGEST_SHOWN_VALUE)}…` : value;
  return `${name} is ${JSON.stringify(shown)}: it must be ${allowed}.`;
}

export type SettingKey = keyof typeof SETTINGS;

/** The environment, as `process.env` has it. */
export interface Environment {
  readonly [name: string]: string | undefined;
}

export interface ConfigSources {
  readonly env: Environment;
  /** What was given on the command line, by the keys of `SETTINGS`: it wins over the environment. */
  readonly flags?: Readonly<Partial<Record<SettingKey, string | undefined>>>;
  /** Whether the log goes to a terminal. */
  readonly isTerminal?: boolean;
}

/**
 * Reads the whole configuration. An empty environment variable counts as unset.
 *
 * @throws ConfigError that names every wrong setting.
 */
export function loadConfig({ env, flags = {}, isTerminal = false }: ConfigSources): Config {
  const problems: ConfigProblem[] = [];

  function read<Value>(key: SettingKey, schema: Setting<Value>): Value {
    const given = flags[key];
    const text = given ?? env[schema.env];
    if (text === undefined || (text === "" && given === undefined)) return schema.fallback;
    const value = schema.parse(text);
    if (value !== undefined) return value;
    const name = given === undefined ? schema.env : `--${schema.flag}`;
    problems.push({ name, value: schema.secret ? undefined : text, allowed: schema.allowed });
    return schema.fallback;
  }

  /** What was given, by its name, for a problem that is one of several settings together. */
  function misfit(key: SettingKey, allowed: string): void {
    const given = flags[key];
    const { env: name, flag } = SETTINGS[key];
    problems.push({ name: given === undefined ? name : `--${flag}`, value: given ?? env[name] ?? "", allowed });
  }

  function tlsChoice(): TlsChoice | undefined {
    const found = problems.length;
    const certFile = read("tlsCertFile", SETTINGS.tlsCertFile);
    const keyFile = read("tlsKeyFile", SETTINGS.tlsKeyFile);
    const clientCaFile = read("tlsClientCaFile", SETTINGS.tlsClientCaFile);
    const clientCert = read("tlsClientCert", SETTINGS.tlsClientCert);
    if (problems.length > found) return undefined;
    const asks = clientCert !== "none";
    if (certFile === undefined && (keyFile !== undefined || asks || clientCaFile !== undefined)) {
      misfit("tlsCertFile", "set where any other setting of TLS is");
    }
    if (keyFile === undefined && certFile !== undefined) misfit("tlsKeyFile", "set where HARBORFORGE_TLS_CERT_FILE is");
    if (asks && clientCaFile === undefined) {
      misfit("tlsClientCaFile", "set where HARBORFORGE_TLS_CLIENT_CERT is optional or required");
    }
    // Who names an authority means to ask for certificates: to let everybody in would be the wrong guess.
    if (!asks && clientCaFile !== undefined) {
      misfit("tlsClientCert", "optional or required where HARBORFORGE_TLS_CLIENT_CA_FILE is set");
    }
    if (certFile === undefined || keyFile === undefined) return undefined;
    return Object.freeze({ certFile, keyFile, clientCaFile, clientCert });
  }

  const url = read("databaseUrl", SETTINGS.databaseUrl);
  const dataDir = read("dataDir", SETTINGS.dataDir);
  const logFormat = read("logFormat", SETTINGS.logFormat);
  const accessValues = {
    auth: read("auth", SETTINGS.auth),
    allowedHosts: read("allowedHosts", SETTINGS.allowedHosts),
    tlsInFront: read("tlsInFront", SETTINGS.tlsInFront),
    jwks: read("jwtJwks", SETTINGS.jwtJwks),
    issuer: read("jwtIssuer", SETTINGS.jwtIssuer),
    audience: read("jwtAudience", SETTINGS.jwtAudience),
    algorithms: read("jwtAlgorithms", SETTINGS.jwtAlgorithms),
    claims: read("jwtClaims", SETTINGS.jwtClaims),
    roleNames: read("jwtRoles", SETTINGS.jwtRoles),
    clockToleranceMs: read("jwtClockTolerance", SETTINGS.jwtClockTolerance),
    certificatePrincipals: read("certificatePrincipals", SETTINGS.certificatePrincipals),
  };
  const wrong = (name: string, sentence: string): void => {
    problems.push({ name, value: undefined, allowed: "", sentence });
  };
  const prettyOrJson = isTerminal ? "pretty" : "json";
  const config: Config = {
    database: url === undefined ? { kind: "embedded", dataDir } : { kind: "external", url },
    grpcAddress: Object.freeze(read("grpcAddress", SETTINGS.grpcAddress)),
    httpAddress: Object.freeze(read("httpAddress", SETTINGS.httpAddress)),
    heartbeatIntervalMs: read("heartbeatInterval", SETTINGS.heartbeatInterval),
    heartbeatsPerSecond: read("heartbeatsPerSecond", SETTINGS.heartbeatsPerSecond),
    firstLeaseMs: read("firstLease", SETTINGS.firstLease),
    transitionRetentionMs: read("transitionRetention", SETTINGS.transitionRetention),
    transitionLimit: read("transitionLimit", SETTINGS.transitionLimit),
    watchMaxAgeMs: read("watchMaxAge", SETTINGS.watchMaxAge),
    tls: tlsChoice(),
    maxConnections: read("maxConnections", SETTINGS.maxConnections),
    connectionsPerSecond: read("connectionsPerSecond", SETTINGS.connectionsPerSecond),
    requestsPerSecond: read("requestsPerSecond", SETTINGS.requestsPerSecond),
    streamsPerCaller: read("streamsPerCaller", SETTINGS.streamsPerCaller),
    reflection: read("reflection", SETTINGS.reflection) === "on",
    access: Object.freeze(accessOf(accessValues, wrong)),
    logLevel: read("logLevel", SETTINGS.logLevel),
    logFormat: logFormat === "auto" ? prettyOrJson : logFormat,
    drainGraceMs: read("drainGrace", SETTINGS.drainGrace),
  };
  if (problems.length === 0) {
    const listeners = [
      { name: SETTINGS.grpcAddress.env, address: config.grpcAddress },
      { name: SETTINGS.httpAddress.env, address: config.httpAddress },
    ];
    exposed(listeners, config.access, config.tls !== undefined, wrong);
    unasked(config.access, config.tls?.clientCert ?? "none", wrong);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  Object.freeze(config.database);
  return Object.freeze(config);
}
