import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/config.ts";
import type { DatabaseChoice } from "../../src/config/database.ts";
import { ConfigError } from "../../src/config/problems.ts";
import type { ConfigSources } from "../../src/config/read.ts";
import type { Setting } from "../../src/config/setting.ts";
import { SETTINGS } from "../../src/config/settings.ts";
import {
  databaseLabel,
  formatAddress,
  formatDuration,
  isDatabaseUrl,
  parseAddress,
  parseDuration,
} from "../../src/config/values.ts";
import { temporaryFolder } from "../support/owned-process.ts";

const HOME = { HOME: "/home/ada" };

function load(env: ConfigSources["env"], flags: ConfigSources["flags"] = {}) {
  return loadConfig({ env: { ...HOME, ...env }, flags });
}

function errorOf(load: () => unknown): ConfigError {
  try {
    load();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("the configuration was accepted");
}

describe("durations", () => {
  it.each([
    ["0s", 0],
    ["500ms", 500],
    ["10s", 10_000],
    ["90s", 90_000],
    ["1m30s", 90_000],
    ["2h", 7_200_000],
    ["1h1m1s1ms", 3_661_001],
  ])("accept %s", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each([
    "",
    "0",
    "10",
    "s",
    "10 s",
    " 10s",
    "10s\n",
    "1.5s",
    "-1s",
    "+1s",
    "1d",
    "10S",
    "30s1m",
    "1s1s",
    "1e3ms",
    "0x1s",
    "٣s",
    "9999999999s",
    "Infinitys",
  ])("reject %j", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it("are parsed as they are formatted", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 366 * 86_400_000 }), (ms) => {
        expect(parseDuration(formatDuration(ms))).toBe(ms);
      }),
    );
  });

  it("add up, whichever units they are written in", () => {
    const count = fc.option(fc.integer({ min: 0, max: 99_999 }), { nil: undefined });
    fc.assert(
      fc.property(count, count, count, count, (h, m, s, ms) => {
        const text = Object.entries({ h, m, s, ms })
          .map(([unit, number]) => (number === undefined ? "" : `${number}${unit}`))
          .join("");
        const total = (h ?? 0) * 3_600_000 + (m ?? 0) * 60_000 + (s ?? 0) * 1_000 + (ms ?? 0);
        expect(parseDuration(text)).toBe(text === "" ? undefined : total);
      }),
    );
  });
});

describe("addresses", () => {
  it.each([
    ["127.0.0.1:50051", "127.0.0.1", 50_051],
    ["0.0.0.0:0", "0.0.0.0", 0],
    ["localhost:65535", "localhost", 65_535],
    ["agents.internal.example:1", "agents.internal.example", 1],
    ["my_container-2:80", "my_container-2", 80],
    ["[::1]:8080", "::1", 8_080],
    ["[::]:0", "::", 0],
    ["[2001:db8::7]:443", "2001:db8::7", 443],
  ])("accept %s", (text, host, port) => {
    expect(parseAddress(text)).toEqual({ host, port });
    expect(formatAddress({ host, port })).toBe(text);
  });

  it.each([
    "",
    ":",
    "50051",
    ":50051",
    "localhost",
    "localhost:",
    "localhost:65536",
    "localhost:-1",
    "localhost:1e3",
    "localhost:080808",
    "::1:80",
    "[::1]",
    "[localhost]:80",
    "[]:80",
    "256.0.0.1:80",
    "127.1:80",
    "a b:80",
    "http://localhost:80",
    "localhost:80/x",
    "-a:80",
    "a..b:80",
    "localhost:80\n",
    `${"a".repeat(64)}:80`,
  ])("reject %j", (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });
});

describe("the database's URL", () => {
  it.each([
    ["postgres://localhost/agents", "localhost/agents"],
    ["postgresql://ada:secret@db.example:5433/agents?sslmode=require&password=secret", "db.example:5433/agents"],
    ["postgres://ada:sec%40ret@a:1,b:2,[::1]:3/agents?target_session_attrs=read-write", "a:1,b:2,[::1]:3/agents"],
    ["postgres://ada:sec@ret@db/agents", "db/agents"],
    ["postgres:///agents?host=/run/postgresql", "/agents"],
    ["postgres://ada@", ""],
  ])("%s is shown as %j, without secrets", (url, label) => {
    expect(isDatabaseUrl(url)).toBe(true);
    expect(databaseLabel(url)).toBe(label);
  });

  it.each([
    "",
    "postgres:",
    "postgres://a b/c",
    "mysql://localhost/x",
    "localhost:5432",
    "host=localhost password=secret",
    "postgres://h:0/x",
    "postgres://h:65536/x",
    "postgres://h:port/x",
    "postgres://ada:secret",
    "postgres://u:%zz@h/x",
    "postgres://h/x\n",
    " postgres://h/x",
  ])("rejects %j", (url) => {
    expect(isDatabaseUrl(url)).toBe(false);
  });
});

describe("the configuration", () => {
  it("has a default for every setting", () => {
    expect(load({})).toEqual({
      database: { kind: "embedded", dataDir: undefined },
      grpcAddress: { host: "127.0.0.1", port: 50_051 },
      httpAddress: { host: "127.0.0.1", port: 8_080 },
      heartbeatIntervalMs: 10_000,
      heartbeatsPerSecond: 10_000,
      firstLeaseMs: 60_000,
      transitionRetentionMs: 604_800_000,
      transitionLimit: 10_000_000,
      wakesPerSecond: 100,
      offersPerClaw: 50,
      wakeRetentionMs: 604_800_000,
      watchMaxAgeMs: 1_800_000,
      tls: undefined,
      maxConnections: 50_000,
      connectionsPerSecond: 500,
      requestsPerSecond: 20_000,
      streamsPerCaller: 100_000,
      reflection: true,
      allowedOrigins: undefined,
      access: { kind: "open", allowedHosts: [] },
      logLevel: "info",
      logFormat: "json",
      audit: { calls: "all", file: undefined },
      compression: true,
      drainDelayMs: 0,
      drainGraceMs: 10_000,
    });
  });

  it("reads every setting from the environment", () => {
    expect(
      load({
        DATABASE_URL: "postgres://ada:secret@db/agents",
        HARBORFORGE_DATA_DIR: "/srv/data",
        HARBORFORGE_GRPC_ADDRESS: "[::]:0",
        HARBORFORGE_HTTP_ADDRESS: "0.0.0.0:80",
        HARBORFORGE_HEARTBEAT_INTERVAL: "100ms",
        HARBORFORGE_HEARTBEATS_PER_SECOND: "1000000",
        HARBORFORGE_FIRST_LEASE: "24h",
        HARBORFORGE_LOG_LEVEL: "silent",
        HARBORFORGE_LOG_FORMAT: "pretty",
        HARBORFORGE_AUDIT_LOG: "admin",
        HARBORFORGE_AUDIT_FILE: "/var/log/audit.log",
        HARBORFORGE_TRANSITION_RETENTION: "1h",
        HARBORFORGE_TRANSITION_LIMIT: "5",
        HARBORFORGE_WATCH_MAX_AGE: "1m30s",
        HARBORFORGE_WAKES_PER_SECOND: "7",
        HARBORFORGE_OFFERS_PER_CLAW: "8",
        HARBORFORGE_WAKE_RETENTION: "1h",
        HARBORFORGE_TLS_CERT_FILE: "/tls/tls.crt",
        HARBORFORGE_TLS_KEY_FILE: "/tls/tls.key",
        HARBORFORGE_TLS_CLIENT_CA_FILE: "/tls/clients.crt",
        HARBORFORGE_TLS_CLIENT_CERT: "required",
        HARBORFORGE_MAX_CONNECTIONS: "1",
        HARBORFORGE_CONNECTIONS_PER_SECOND: "2",
        HARBORFORGE_REQUESTS_PER_SECOND: "3",
        HARBORFORGE_STREAMS_PER_CALLER: "4",
        HARBORFORGE_REFLECTION: "off",
        HARBORFORGE_COMPRESSION: "off",
        HARBORFORGE_DRAIN_DELAY: "5s",
        HARBORFORGE_ALLOWED_ORIGINS: "https://app.example",
        HARBORFORGE_DRAIN_GRACE: "0s",
        HARBORFORGE_AUTH: "required",
        HARBORFORGE_TLS_IN_FRONT: "yes",
        HARBORFORGE_JWT_JWKS: "https://id.example.org/keys",
        HARBORFORGE_JWT_ISSUER: "https://id.example.org",
        HARBORFORGE_JWT_AUDIENCE: "agents",
        HARBORFORGE_JWT_ALGORITHMS: "ES256, PS512",
        HARBORFORGE_JWT_CLAIMS: "role=realm_access.roles,claw=claw",
        HARBORFORGE_JWT_ROLES: "hf-admins=admin,hf claws=agent",
        HARBORFORGE_JWT_CLOCK_TOLERANCE: "1s",
        HARBORFORGE_CERTIFICATE_PRINCIPALS: "/etc/principals.json",
      }),
    ).toEqual({
      database: { kind: "external", url: "postgres://ada:secret@db/agents" },
      grpcAddress: { host: "::", port: 0 },
      httpAddress: { host: "0.0.0.0", port: 80 },
      heartbeatIntervalMs: 100,
      heartbeatsPerSecond: 1_000_000,
      firstLeaseMs: 86_400_000,
      transitionRetentionMs: 3_600_000,
      transitionLimit: 5,
      wakesPerSecond: 7,
      offersPerClaw: 8,
      wakeRetentionMs: 3_600_000,
      watchMaxAgeMs: 90_000,
      tls: {
        certFile: "/tls/tls.crt",
        keyFile: "/tls/tls.key",
        clientCaFile: "/tls/clients.crt",
        clientCert: "required",
      },
      maxConnections: 1,
      connectionsPerSecond: 2,
      requestsPerSecond: 3,
      streamsPerCaller: 4,
      reflection: false,
      allowedOrigins: ["https://app.example"],
      access: {
        kind: "credentials",
        tlsInFront: true,
        jwt: {
          jwks: new URL("https://id.example.org/keys"),
          issuer: "https://id.example.org",
          audience: "agents",
          algorithms: ["PS512", "ES256"],
          clockToleranceMs: 1_000,
          claims: { principal: "sub", role: "realm_access.roles", agents: "agent_ids", claw: "claw" },
          roleNames: new Map([
            ["hf-admins", "admin"],
            ["hf claws", "agent"],
          ]),
        },
        certificatePrincipals: "/etc/principals.json",
      },
      logLevel: "silent",
      logFormat: "pretty",
      audit: { calls: "admin", file: "/var/log/audit.log" },
      compression: false,
      drainDelayMs: 5_000,
      drainGraceMs: 0,
    });
  });

  it("prefers a flag to the environment, also to an invalid value there", () => {
    const config = load({ HARBORFORGE_FIRST_LEASE: "soon" }, { firstLease: "5s", grpcAddress: "localhost:1" });
    expect(config).toMatchObject({ firstLeaseMs: 5_000, grpcAddress: { host: "localhost", port: 1 } });
  });

  it("treats an empty variable as unset, and rejects an empty flag", () => {
    expect(load({ HARBORFORGE_LOG_LEVEL: "", DATABASE_URL: "" })).toMatchObject({
      logLevel: "info",
      database: { kind: "embedded" },
    });
    expect(errorOf(() => load({}, { logLevel: "" })).message).toMatch(/^--log-level is ""/);
  });

  it.each([
    [{ HARBORFORGE_TLS_CERT_FILE: "c" }, ["HARBORFORGE_TLS_KEY_FILE"]],
    [{ HARBORFORGE_TLS_KEY_FILE: "k" }, ["HARBORFORGE_TLS_CERT_FILE"]],
    [{ HARBORFORGE_TLS_CLIENT_CERT: "optional" }, ["HARBORFORGE_TLS_CERT_FILE", "HARBORFORGE_TLS_CLIENT_CA_FILE"]],
    [
      { HARBORFORGE_TLS_CERT_FILE: "c", HARBORFORGE_TLS_KEY_FILE: "k", HARBORFORGE_TLS_CLIENT_CERT: "required" },
      ["HARBORFORGE_TLS_CLIENT_CA_FILE"],
    ],
    [
      { HARBORFORGE_TLS_CERT_FILE: "c", HARBORFORGE_TLS_KEY_FILE: "k", HARBORFORGE_TLS_CLIENT_CA_FILE: "a" },
      ["HARBORFORGE_TLS_CLIENT_CERT"],
    ],
  ])("names the missing setting when settings of TLS conflict: %o", (env, names) => {
    expect(errorOf(() => load(env)).problems.map(({ name }) => name)).toEqual(names);
  });

  it("cannot be changed", () => {
    const config = load({});
    for (const part of [config, config.database, config.grpcAddress, config.httpAddress]) {
      expect(Object.isFrozen(part)).toBe(true);
    }
  });

  it("logs text on a terminal by default", () => {
    expect(loadConfig({ env: HOME, isTerminal: true }).logFormat).toBe("pretty");
    expect(loadConfig({ env: HOME, isTerminal: true, flags: { logFormat: "json" } }).logFormat).toBe("json");
  });
});

describe("the data folder", () => {
  it.each<[string, ConfigSources["env"], DatabaseChoice]>([
    ["as it was named", { HARBORFORGE_DATA_DIR: "/srv/x/../data" }, { kind: "embedded", dataDir: "/srv/data" }],
    ["the default where none is named", {}, { kind: "embedded", dataDir: undefined }],
  ])("is %s", (_, env, database) => {
    expect(load(env).database).toEqual(database);
  });

  it("is absolute, whatever the setting", () => {
    expect(load({}, { dataDir: "data" }).database).toMatchObject({ dataDir: `${process.cwd()}/data` });
  });
});

describe("an invalid value", () => {
  it.each<[string, string, string]>([
    ["HARBORFORGE_GRPC_ADDRESS", "50051", "host:port"],
    ["HARBORFORGE_HTTP_ADDRESS", "localhost:99999", "0 (takes a free one) to 65535"],
    ["HARBORFORGE_HEARTBEAT_INTERVAL", "99ms", "100ms to 10m"],
    ["HARBORFORGE_HEARTBEAT_INTERVAL", "10m1ms", "100ms to 10m"],
    ["HARBORFORGE_HEARTBEAT_INTERVAL", "10", "such as 500ms, 10s or 1m30s"],
    ["HARBORFORGE_HEARTBEATS_PER_SECOND", "0", "a whole number from 1 to 1000000"],
    ["HARBORFORGE_HEARTBEATS_PER_SECOND", "1000001", "a whole number from 1 to 1000000"],
    ["HARBORFORGE_HEARTBEATS_PER_SECOND", "1e3", "a whole number from 1 to 1000000"],
    ["HARBORFORGE_FIRST_LEASE", "24h1ms", "100ms to 24h"],
    ["HARBORFORGE_FIRST_LEASE", "0s", "100ms to 24h"],
    ["HARBORFORGE_LOG_LEVEL", "INFO", "one of trace, debug, info, warn, error, fatal, silent"],
    ["HARBORFORGE_LOG_FORMAT", "xml", "one of auto, pretty, json"],
    ["HARBORFORGE_DRAIN_DELAY", "5m1ms", "0s to 5m"],
    ["HARBORFORGE_DRAIN_GRACE", "5m1ms", "0s to 5m"],
    ["HARBORFORGE_DATA_DIR", "a\u0000b", "the path of a folder"],
    ["HARBORFORGE_AUTH", "yes", "one of none, required"],
    ["HARBORFORGE_JWT_JWKS", "http://id.example.org/keys", "http on loopback only"],
    ["HARBORFORGE_JWT_JWKS", "https://ada:secret@id.example.org/keys", "without a password"],
    ["HARBORFORGE_JWT_ALGORITHMS", "none", "RS256"],
    ["HARBORFORGE_JWT_ALGORITHMS", "RS256,HS256", "RS256"],
    ["HARBORFORGE_JWT_CLAIMS", "roles=x", "principal, role, agents and claw"],
    ["HARBORFORGE_JWT_ROLES", "admin", "each with ="],
    ["HARBORFORGE_JWT_ROLES", "boss=root", "one of agent, service, admin, viewer"],
  ])("of %s (%j) is reported with its name and the allowed values", (name, value, allowed) => {
    const { message } = errorOf(() => load({ [name]: value }));
    const shown = value.replace(/^.*@/s, "…@");
    expect(message.startsWith(`${name} is ${JSON.stringify(shown)}: it must be `)).toBe(true);
    expect(message).toContain(allowed);
  });

  it("of a flag is reported with the name of the flag", () => {
    expect(errorOf(() => load({}, { heartbeatInterval: "soon" })).message).toMatch(/^--heartbeat-interval is "soon"/);
  });

  it("is reported together with all others", () => {
    const error = errorOf(() =>
      load({ HARBORFORGE_LOG_LEVEL: "loud", HARBORFORGE_FIRST_LEASE: "x" }, { grpcAddress: "y" }),
    );
    expect(error.problems.map(({ name }) => name)).toEqual([
      "--grpc-address",
      "HARBORFORGE_FIRST_LEASE",
      "HARBORFORGE_LOG_LEVEL",
    ]);
    expect(error.message.split("\n")).toHaveLength(3);
  });

  it.each([
    "mysql://ada:hunter2@db/x",
    "hunter2",
    "postgres://ada:hunter2",
    "host=db password=hunter2",
    "postgres://ada:hunter2@db:x/y",
  ])("of the database's URL is never shown: %s", (url) => {
    for (const error of [errorOf(() => load({ DATABASE_URL: url })), errorOf(() => load({}, { databaseUrl: url }))]) {
      expect(error.message).toMatch(/^(DATABASE_URL|--database-url) is wrong/);
      expect(`${error.stack}${JSON.stringify(error)}`).not.toContain("hunter2");
    }
  });

  it("of any length gives a readable message", () => {
    expect(errorOf(() => load({ HARBORFORGE_LOG_LEVEL: "x".repeat(1e6) })).message.length).toBeLessThan(500);
  });
});

describe("listeners on non-loopback addresses", () => {
  const everywhere = { HARBORFORGE_HTTP_ADDRESS: "0.0.0.0:80", HARBORFORGE_GRPC_ADDRESS: "[::]:0" };
  const message = (env: ConfigSources["env"]): string => errorOf(() => load(env)).message;

  it.each([
    "127.0.0.1:1",
    "127.8.8.8:1",
    "localhost:1",
    "LOCALHOST.:1",
    "[::1]:1",
    "[0:0:0:0:0:0:0:1]:1",
    "[::ffff:127.0.0.1]:1",
  ])("%s is loopback, and needs no credentials", (address) => {
    expect(load({ HARBORFORGE_HTTP_ADDRESS: address }).access).toEqual({ kind: "open", allowedHosts: [] });
  });

  it.each([
    "0.0.0.0:1",
    "[::]:1",
    "10.0.0.7:1",
    "agents.internal:1",
    "localhost.example.org:1",
    "[::ffff:10.0.0.7]:1",
  ])("%s prevents the start while credentials are not required", (address) => {
    const sentence = message({ HARBORFORGE_HTTP_ADDRESS: address });
    expect(sentence).toContain(`HARBORFORGE_HTTP_ADDRESS is ${address}`);
    expect(sentence).toContain("set HARBORFORGE_AUTH=required, or listen on 127.0.0.1.");
    expect(sentence.split("\n")).toHaveLength(1);
  });

  it("one sentence names both listeners", () => {
    const sentence = message(everywhere);
    expect(sentence).toMatch(
      /^HARBORFORGE_GRPC_ADDRESS is \[::\]:0, and HARBORFORGE_HTTP_ADDRESS is 0\.0\.0\.0:80, which/,
    );
  });

  it("credentials in cleartext are rejected, unless TLS ends in front", () => {
    const required = { ...everywhere, HARBORFORGE_AUTH: "required" };
    expect(message(required)).toContain("HARBORFORGE_TLS_IN_FRONT=yes if TLS ends in front.");
    expect(load({ ...required, HARBORFORGE_TLS_IN_FRONT: "yes" }).access).toMatchObject({ kind: "credentials" });
  });

  it("TLS in front does not replace credentials", () => {
    expect(message({ ...everywhere, HARBORFORGE_TLS_IN_FRONT: "yes" })).toContain("set HARBORFORGE_AUTH=required");
  });

  it("allowed host names are accepted without credentials", () => {
    const hosts = (text: string) => load({ HARBORFORGE_ALLOWED_HOSTS: text }).access;
    expect(hosts("Agents.test, other ,[::2]")).toEqual({
      kind: "open",
      allowedHosts: ["agents.test", "other", "::2"],
    });
    for (const wrong of ["*", "*.test", "a:80", "http://a", "a b", "a,,b"]) {
      expect(message({ HARBORFORGE_ALLOWED_HOSTS: wrong })).toContain("without ports and wildcards");
    }
    expect(message({ HARBORFORGE_AUTH: "required", HARBORFORGE_ALLOWED_HOSTS: "a" })).toContain("unset it");
  });
});

describe("origins of pages", () => {
  it("are read as browsers send them", () => {
    const given =
      " https://App.Example ,http://localhost:5173,https://app.example:443,http://[::1]:80,http://bücher.example";
    expect(load({ HARBORFORGE_ALLOWED_ORIGINS: given }).allowedOrigins).toEqual([
      "https://app.example",
      "http://localhost:5173",
      "http://[::1]",
      "http://xn--bcher-kva.example",
    ]);
    const required = { HARBORFORGE_AUTH: "required", HARBORFORGE_ALLOWED_ORIGINS: "https://app.example" };
    expect(load(required).allowedOrigins).toEqual(["https://app.example"]);
  });

  it.each([
    "*",
    "null",
    "app.example",
    "https://app.example/",
    "https://app.example/page",
    "https://*.example",
    "https://app.example:99999",
    "https://user:secret@app.example",
    "https://app.example?a",
    "https://app.example#a",
    "https://",
    "file:///page",
    "ftp://app.example",
    "chrome-extension://abc",
    "https://app.example\\evil.example",
    "https://a%2eexample",
    "https://a b",
    "https://a,,https://b",
    "https://a;https://b",
  ])("are rejected at the start: %s", (wrong) => {
    expect(errorOf(() => load({ HARBORFORGE_ALLOWED_ORIGINS: wrong })).message).toContain(
      "scheme, host and port, without a path, a slash at the end, wildcards and null",
    );
  });
});

describe("credentials", () => {
  it("require settings that fit together", () => {
    const required = { HARBORFORGE_AUTH: "required" };
    expect(load(required).access).toEqual({
      kind: "credentials",
      tlsInFront: false,
      jwt: undefined,
      certificatePrincipals: undefined,
    });
    expect(errorOf(() => load({ ...required, HARBORFORGE_JWT_JWKS: "keys.json" })).message).toBe(
      "JSON Web Tokens cannot be verified without HARBORFORGE_JWT_ISSUER and HARBORFORGE_JWT_AUDIENCE: set them, too.",
    );
    const certificates = { ...required, HARBORFORGE_CERTIFICATE_PRINCIPALS: "x" };
    expect(errorOf(() => load(certificates)).message).toContain("HARBORFORGE_TLS_CLIENT_CERT to optional or required");
    expect(errorOf(() => load({ HARBORFORGE_JWT_ISSUER: "x" })).message).toMatch(/^HARBORFORGE_JWT_ISSUER is set, but/);
    expect(errorOf(() => load({ HARBORFORGE_CERTIFICATE_PRINCIPALS: "x" })).message).toContain(
      "HARBORFORGE_AUTH=required",
    );
  });

  it("name a keys file by its path", () => {
    const jwt = { HARBORFORGE_JWT_JWKS: "keys.json", HARBORFORGE_JWT_ISSUER: "i", HARBORFORGE_JWT_AUDIENCE: "a" };
    expect(load({ HARBORFORGE_AUTH: "required", ...jwt }).access).toMatchObject({
      jwt: { jwks: pathToFileURL(`${process.cwd()}/keys.json`), algorithms: ["RS256", "ES256", "EdDSA"] },
    });
  });
});

describe("secrets in files", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await temporaryFolder("config");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function fileOf(content: string): string {
    const file = join(folder, "url");
    writeFileSync(file, content);
    return file;
  }

  it("exist for every secret setting", () => {
    const secret = Object.values<Setting<unknown>>(SETTINGS).filter((setting) => setting.secret === true);
    const names = new Set(Object.values<Setting<unknown>>(SETTINGS).map(({ env }) => env));
    expect(secret.map(({ env }) => env)).toEqual(["DATABASE_URL"]);
    for (const { env } of secret) expect(names).toContain(`${env}_FILE`);
  });

  it("have the value of the setting, with white space around it", () => {
    const file = fileOf("\n postgres://ada:s%20ecret@db/agents\n\n");
    const database = { kind: "external", url: "postgres://ada:s%20ecret@db/agents", urlFile: file };
    expect(load({ DATABASE_URL_FILE: file }).database).toEqual(database);
    expect(load({}, { databaseUrlFile: file }).database).toEqual(database);
  });

  it.each([
    ["", /^DATABASE_URL_FILE is ".*url": the file is empty\.$/],
    ["hunter2", /the file must contain a URL such as postgres:/],
    ["mysql://ada:hunter2@db", /the file must contain a URL such as postgres:/],
  ])("are rejected without their content: %s", (content, sentence) => {
    const { message } = errorOf(() => load({ DATABASE_URL_FILE: fileOf(content) }));
    expect(message).toMatch(sentence);
    expect(message).not.toContain("hunter2");
  });

  it("are rejected if there is no file, or both are set", () => {
    expect(errorOf(() => load({ DATABASE_URL_FILE: "/nowhere/url" })).message).toBe(
      'DATABASE_URL_FILE is "/nowhere/url": the file does not exist.',
    );
    const both = {
      DATABASE_URL_FILE: fileOf("postgres://db/agents"),
      DATABASE_URL: "postgres://ada:hunter2@db/agents",
    };
    expect(errorOf(() => load(both)).message).toBe(
      "DATABASE_URL_FILE is set, but DATABASE_URL is set, too: unset one of them.",
    );
  });
});

describe("a password in a setting that has none", () => {
  it.each([
    ["HARBORFORGE_JWT_JWKS", "https://ada:hunter2@id.example.org/keys"],
    ["HARBORFORGE_GRPC_ADDRESS", "http://ada:hun@ter2/x@127.0.0.1:1"],
    ["HARBORFORGE_HTTP_ADDRESS", "ada:hunter2@127.0.0.1:1"],
  ])("is not shown: %s", (name, value) => {
    const { message } = errorOf(() => load({ [name]: value }));
    expect(message).toContain(`${name} is "…@`);
    expect(message).not.toMatch(/hun|ter2/);
  });
});

describe("the table of settings", () => {
  it("equals the table in the documentation", () => {
    expect(Object.values(SETTINGS).map(({ env, defaultText }) => `${env} ${defaultText}`)).toEqual([
      "DATABASE_URL an embedded PostgreSQL",
      "DATABASE_URL_FILE none",
      expect.stringContaining("$XDG_DATA_HOME/harborforge-agents"),
      "HARBORFORGE_GRPC_ADDRESS 127.0.0.1:50051",
      "HARBORFORGE_HTTP_ADDRESS 127.0.0.1:8080",
      "HARBORFORGE_HEARTBEAT_INTERVAL 10s",
      "HARBORFORGE_HEARTBEATS_PER_SECOND 10000",
      "HARBORFORGE_FIRST_LEASE 60s",
      "HARBORFORGE_TRANSITION_RETENTION 168h",
      "HARBORFORGE_TRANSITION_LIMIT 10000000",
      "HARBORFORGE_WAKES_PER_SECOND 100",
      "HARBORFORGE_OFFERS_PER_CLAW 50",
      "HARBORFORGE_WAKE_RETENTION 168h",
      "HARBORFORGE_WATCH_MAX_AGE 30m",
      "HARBORFORGE_TLS_CERT_FILE none",
      "HARBORFORGE_TLS_KEY_FILE none",
      "HARBORFORGE_TLS_CLIENT_CA_FILE none",
      "HARBORFORGE_TLS_CLIENT_CERT none",
      "HARBORFORGE_MAX_CONNECTIONS 50000",
      "HARBORFORGE_CONNECTIONS_PER_SECOND 500",
      "HARBORFORGE_REQUESTS_PER_SECOND 20000",
      "HARBORFORGE_STREAMS_PER_CALLER 100000",
      "HARBORFORGE_REFLECTION on",
      "HARBORFORGE_COMPRESSION on",
      "HARBORFORGE_ALLOWED_ORIGINS none",
      "HARBORFORGE_LOG_LEVEL info",
      "HARBORFORGE_LOG_FORMAT auto: pretty on a terminal, else json",
      "HARBORFORGE_AUDIT_LOG all",
      "HARBORFORGE_AUDIT_FILE none: they are lines of the log",
      "HARBORFORGE_DRAIN_DELAY 0s",
      "HARBORFORGE_DRAIN_GRACE 10s",
      "HARBORFORGE_AUTH none",
      "HARBORFORGE_ALLOWED_HOSTS none",
      "HARBORFORGE_TLS_IN_FRONT no",
      "HARBORFORGE_JWT_JWKS none: they are rejected",
      "HARBORFORGE_JWT_ISSUER none",
      "HARBORFORGE_JWT_AUDIENCE none",
      "HARBORFORGE_JWT_ALGORITHMS RS256,ES256,EdDSA",
      "HARBORFORGE_JWT_CLAIMS principal=sub,role=role,agents=agent_ids,claw=claw_identifier",
      "HARBORFORGE_JWT_ROLES agent=agent,service=service,admin=admin,viewer=viewer",
      "HARBORFORGE_JWT_CLOCK_TOLERANCE 5s",
      "HARBORFORGE_CERTIFICATE_PRINCIPALS none: certificates authenticate no client",
    ]);
  });

  it.each(
    Object.entries(SETTINGS),
  )("%s: the flag is the key in kebab-case, and the default is the documented one", (key, setting) => {
    expect(setting.flag).toBe(key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`));
    if (setting.fallback === undefined) return;
    expect(setting.parse(setting.defaultText.replace(/:? .*/, ""))).toEqual(setting.fallback);
  });
});
