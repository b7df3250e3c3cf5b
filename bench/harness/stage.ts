import { join } from "node:path";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "@harborforge/embedded-postgres";
import { Client } from "pg";
import { migrate } from "../../src/storage/migrations.ts";
import { spawnSync } from "../../test/support/owned-process.ts";
import { cpuMs, family } from "./cpu.ts";
import { CORES, type Started, start, untilSaid } from "./processes.ts";
import { temporaryFolder } from "./run-folder.ts";

/** A replica of the service, started as users start it. */
export interface Replica extends AsyncDisposable {
  readonly pid: number;
  readonly started: Started;
  /** `host:port` of the two listeners. */
  readonly grpc: string;
  readonly http: string;
}

/** A connection to a database, for queries during a measurement. */
export interface Questions extends AsyncDisposable {
  ask<Row extends object>(sql: string, values?: readonly unknown[]): Promise<Row[]>;
}

/** A PostgreSQL for the bench with the defaults of `npm start`, and databases in it. */
export class Stage implements AsyncDisposable {
  readonly #postgres: EmbeddedPostgres;

  private constructor(postgres: EmbeddedPostgres) {
    this.#postgres = postgres;
  }

  static async open(signal?: AbortSignal): Promise<Stage> {
    const postgres = await startEmbeddedPostgres({
      dataDir: join(await temporaryFolder("postgresql"), "data"),
      log: { info() {}, warn() {} },
      ...(signal === undefined ? {} : { signal }),
    });
    if (CORES !== undefined) {
      // Its background processes started before it was pinned; later ones inherit the core.
      for (const pid of await family(postgres.pid))
        spawnSync("taskset", ["-a", "-c", "-p", CORES.service, String(pid)]);
    }
    return new Stage(postgres);
  }

  get postgresVersion(): string {
    return this.#postgres.version;
  }

  /** A new, migrated database. */
  async database(name: string): Promise<string> {
    const url = await this.emptyDatabase(name);
    await migrate(url);
    return url;
  }

  async emptyDatabase(name: string): Promise<string> {
    await this.drop(name);
    await this.query(this.#postgres.connectionString, `CREATE DATABASE ${name}`);
    const url = new URL(this.#postgres.connectionString);
    url.pathname = `/${name}`;
    return url.href;
  }

  async drop(name: string): Promise<void> {
    await this.query(this.#postgres.connectionString, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  }

  async query<Row extends object>(url: string, sql: string, values: readonly unknown[] = []): Promise<Row[]> {
    await using questions = await this.questions(url);
    return await questions.ask<Row>(sql, values);
  }

  async questions(url: string): Promise<Questions> {
    const client = new Client({ connectionString: url });
    // A connection that is cut while idle emits an event. The next query fails anyway.
    client.on("error", () => undefined);
    await client.connect();
    return {
      ask: async <Row extends object>(sql: string, values: readonly unknown[] = []) =>
        (await client.query<Row>(sql, [...values])).rows,
      [Symbol.asyncDispose]: () => client.end(),
    };
  }

  /** Makes a checkpoint, so that none caused by the preparation falls into a round. */
  async checkpoint(): Promise<void> {
    await this.query(this.#postgres.connectionString, "CHECKPOINT");
  }

  /** The processor time of PostgreSQL with all its processes, in milliseconds. */
  async cpuMs(): Promise<number> {
    return await cpuMs(await family(this.#postgres.pid));
  }

  async replica(databaseUrl: string, env: Readonly<Record<string, string>> = {}): Promise<Replica> {
    const started: Started = start(process.execPath, ["src/main.ts", "serve"], {
      side: "service",
      env: {
        DATABASE_URL: databaseUrl,
        HARBORFORGE_GRPC_ADDRESS: "127.0.0.1:0",
        HARBORFORGE_HTTP_ADDRESS: "127.0.0.1:0",
        HARBORFORGE_DRAIN_GRACE: "1s",
        ...env,
      },
    });
    const [, grpc = "", http = ""] = await untilSaid(started, /^gRPC {2}http:\/\/(\S+)\nHTTP {2}http:\/\/(\S+)\n/m);
    return { pid: started.pid, started, grpc, http, [Symbol.asyncDispose]: () => started[Symbol.asyncDispose]() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#postgres.stop();
  }
}

/** By default, `claw-0` has the first thousand agents of each prefix, and so on. */
export const AGENTS_PER_CLAW = 1_000;

export interface SeededAgents {
  readonly prefix: string;
  readonly count: number;
  readonly leaseMs?: number;
  /** Default: `claw-` and `AGENTS_PER_CLAW`. */
  readonly claw?: string;
  readonly perClaw?: number;
}

/** Inserts idle agents `${prefix}1`, `${prefix}2` …, whose leases last longer than the bench. */
export async function seedAgents(
  stage: Stage,
  url: string,
  { prefix, count, leaseMs = 3_600_000, claw = "claw-", perClaw = AGENTS_PER_CLAW }: SeededAgents,
): Promise<void> {
  await stage.query(
    url,
    `WITH who AS (SELECT $2 || n AS name, $5 || ((n - 1) / $4::integer) AS claw FROM generate_series(1, $1::integer) n),
     u AS (INSERT INTO users (username) SELECT name FROM who RETURNING id, username),
     a AS (
       INSERT INTO agents (user_id, agent_id, claw_identifier, created_at, status_changed_at, revision)
       SELECT u.id, u.username, who.claw, clock_timestamp(), clock_timestamp(), c.revision
       FROM u JOIN who ON who.name = u.username, revision_counter c
       RETURNING id, revision
     )
     INSERT INTO agent_liveness (agent, revision, epoch, lease_expires_at)
     SELECT id, revision, nextval('agent_epochs'), clock_timestamp() + $3::bigint * interval '1 millisecond' FROM a`,
    [count, prefix, leaseMs, perClaw, claw],
  );
  await stage.query(url, "ANALYZE");
}
