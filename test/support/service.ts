import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { pino } from "pino";
import { afterAll, beforeAll } from "vitest";
import { escapingLines } from "../../src/cli/log.ts";
import type { ServerOptions } from "../../src/server/options.ts";
import { type Addresses, Server } from "../../src/server.ts";
import { createTestDatabase } from "./cluster.ts";

/** A service as a client sees it: both listeners, and a database of its own behind them. */
export interface RunningService extends AsyncDisposable {
  readonly server: Server;
  readonly addresses: Addresses;
  readonly databaseUrl: string;
  /** The whole log, one JSON object a line. */
  readonly logged: readonly string[];
  /** A statement of the test, for operations that clients do not have: backdating rows. */
  query<Row extends object>(sql: string, ...values: readonly unknown[]): Promise<Row[]>;
}

/**
 * Settings that a test may change. A lease is three intervals: 30 s, so that no agent expires during a pause of
 * the test.
 */
export interface ServiceOptions
  extends Partial<
    Pick<
      ServerOptions,
      | "grpcAddress"
      | "httpAddress"
      | "pace"
      | "firstLeaseMs"
      | "watchLimits"
      | "watchMaxAgeMs"
      | "access"
      | "allowedOrigins"
      | "log"
    >
  > {
  /** Makes another path to the database for the service; the test's own statements go directly. */
  readonly via?: (databaseUrl: string) => Promise<string>;
}

export const INTERVAL_MS = 10_000;
export const FIRST_LEASE_MS = 60_000;

/** Starts the service in this process, on free ports and a database that ends with it. */
export async function startService({ via, ...options }: ServiceOptions = {}): Promise<RunningService> {
  await using undo = new AsyncDisposableStack();
  const database = undo.use(await createTestDatabase());
  const logged: string[] = [];
  const server = undo.use(
    await startReplica(via === undefined ? database.url : await via(database.url), {
      log: pino({ level: "info" }, escapingLines({ write: (line: string) => void logged.push(line) })),
      ...options,
    }),
  );
  const client = new Client({ connectionString: database.url });
  // A test that cuts the database off cuts this connection, too.
  client.on("error", () => undefined);
  await client.connect();
  undo.defer(() => client.end());
  const everything = undo.move();
  return {
    server,
    addresses: server.addresses,
    databaseUrl: database.url,
    logged,
    query: async <Row extends object>(sql: string, ...values: readonly unknown[]) =>
      (await client.query<Row>(sql, [...values])).rows,
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

/** Another replica on a database that a service has already. */
export async function startReplica(databaseUrl: string, options: Omit<ServiceOptions, "via"> = {}): Promise<Server> {
  return await Server.start({
    databaseUrl,
    grpcAddress: "127.0.0.1:0",
    httpAddress: "127.0.0.1:0",
    pace: { shortestIntervalMs: INTERVAL_MS, heartbeatsPerSecond: 10_000 },
    firstLeaseMs: FIRST_LEASE_MS,
    log: pino({ level: "silent" }),
    ...options,
  });
}

/** One service for the tests of a file; started when a test runs. */
export function useService(options: ServiceOptions = {}): () => RunningService {
  let service: RunningService | undefined;
  beforeAll(async () => {
    service = await startService(options);
  });
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
  });
  return () => {
    if (service === undefined) throw new Error("the service runs only while tests do");
    return service;
  };
}

/** A name that no other test uses: tests of a file share its service. */
export function unique(what: string): string {
  return `${what}-${randomUUID().slice(0, 13)}`;
}
