import { chmod, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { CallError, createServiceClients, type ServiceClients } from "harborforge-agents-client";
import { migrate } from "../../src/storage/migrations.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { PoolProxy } from "../support/pool-proxy.ts";
import { until } from "../support/until.ts";
import { ChaosDatabase } from "./chaos-database.ts";
import { Claw } from "./claw.ts";
import { FaultLog } from "./fault-log.ts";
import { Ledger } from "./ledger.ts";
import { ReplicaProcess } from "./replica-process.ts";

const ENROLMENTS_AT_ONCE = 64;

export interface WorldOptions {
  readonly replicas: number;
  readonly claws: number;
  readonly agents: number;
  readonly intervalMs: number;
  /** Of the replicas, over what the chaos sets. */
  readonly env?: Readonly<Record<string, string>>;
  /** The folder of the replicas' program, for each start of a replica, from 0. Default: this checkout. */
  readonly programOf?: ((start: number) => string) | undefined;
  readonly onLine: (line: string) => void;
}

/** A replica and its path to the database. */
export interface ReplicaPlace {
  readonly index: number;
  readonly process: ReplicaProcess;
  readonly toDatabase: FaultProxy;
  /** The first part of that path: it distinguishes the replica's pools. */
  readonly pools: PoolProxy;
}

interface WorldParts {
  readonly folder: string;
  readonly log: FaultLog;
  readonly ledger: Ledger;
  readonly database: ChaosDatabase;
  readonly replicas: readonly ReplicaPlace[];
  readonly claws: readonly Claw[];
  /** Agents without a claw, for misbehaving clients. */
  readonly floodAgents: readonly string[];
}

/** All parts of a chaos run: a database, replicas, claws and the paths between them. Ends with all of it. */
export class World implements WorldParts, AsyncDisposable {
  readonly folder: string;
  readonly log: FaultLog;
  readonly ledger: Ledger;
  readonly database: ChaosDatabase;
  readonly replicas: readonly ReplicaPlace[];
  readonly claws: readonly Claw[];
  readonly floodAgents: readonly string[];
  readonly #undo: AsyncDisposableStack;

  private constructor(parts: WorldParts, undo: AsyncDisposableStack) {
    this.folder = parts.folder;
    this.log = parts.log;
    this.ledger = parts.ledger;
    this.database = parts.database;
    this.replicas = parts.replicas;
    this.claws = parts.claws;
    this.floodAgents = parts.floodAgents;
    this.#undo = undo;
  }

  static async start(options: WorldOptions): Promise<World> {
    await using undo = new AsyncDisposableStack();
    const folder = await temporaryFolder("chaos");
    undo.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
    // Root runs PostgreSQL as another account, which has to enter the folder.
    await chmod(folder, 0o711);
    const dataDir = join(folder, "data");
    await mkdir(dataDir, { mode: 0o711 });
    const log = new FaultLog(options.onLine);
    undo.defer(() => log.close());

    const database = undo.use(await ChaosDatabase.start(dataDir));
    await migrate(database.url);
    const replicas = await Promise.all(
      Array.from({ length: options.replicas }, async (_, index) => {
        const toDatabase = undo.use(await FaultProxy.open(() => [database.port]));
        const pools = undo.use(await PoolProxy.open(() => toDatabase.port));
        const name = `replica ${index + 1}`;
        const process = new ReplicaProcess({
          name,
          databaseUrl: () => database.urlThrough(pools.port),
          env: {
            HARBORFORGE_HEARTBEAT_INTERVAL: `${options.intervalMs}ms`,
            // Longer than the creation of a fleet: no agent may be offline before the first beat.
            HARBORFORGE_FIRST_LEASE: "10m",
            HARBORFORGE_DRAIN_GRACE: `${options.intervalMs * 2}ms`,
            ...options.env,
          },
          logFile: join(folder, `replica-${index + 1}.log`),
          programOf: options.programOf,
          onDied: (how) => log.accident(`${name}: ${how}`),
        });
        undo.use(process).start();
        return { index, process, toDatabase, pools };
      }),
    );
    await Promise.all(replicas.map(({ process }) => process.serving()));

    const routes = () => replicas.flatMap(({ process: { port } }) => (port === undefined ? [] : [port]));
    const ledger = new Ledger();
    const perClaw = Math.ceil(options.agents / options.claws);
    const claws = await Promise.all(
      Array.from({ length: options.claws }, async (_, index) => {
        const identifier = `claw-${index + 1}`;
        const agentIds = Array.from({ length: perClaw }, (_, agent) => `agent-${index + 1}-${agent + 1}`);
        return undo.use(await Claw.open({ index, identifier, agentIds, routes, ledger, log }));
      }),
    );
    const floodAgents = Array.from({ length: 10 }, (_, index) => `flood-${index + 1}`);
    options.onLine("the replicas serve; enrolling agents");
    await enrol(routes(), [
      ...claws.flatMap(({ identifier, agentIds }) =>
        agentIds.map((agentId) => ({ agentId, clawIdentifier: identifier })),
      ),
      ...floodAgents.map((agentId) => ({ agentId, clawIdentifier: "flood" })),
    ]);
    return new World({ folder, log, ledger, database, replicas, claws, floodAgents }, undo.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/** Users with their agents, through all replicas. */
async function enrol(
  ports: readonly number[],
  agents: readonly { agentId: string; clawIdentifier: string }[],
): Promise<void> {
  await using undo = new AsyncDisposableStack();
  const waiting = agents.values();
  const work = async (clients: ServiceClients): Promise<void> => {
    for (const { agentId, clawIdentifier } of waiting) {
      const user = { username: agentId, displayName: agentId, agentId, clawIdentifier, requestId: `enrol ${agentId}` };
      // A database on a busy machine may not answer in time. The request_id makes the repetition safe.
      await until(`${agentId} is enrolled`, () =>
        clients.users.createUser(user).catch((error: unknown) => {
          if (error instanceof CallError && error.code === "UNAVAILABLE") return undefined;
          throw error;
        }),
      );
    }
  };
  const workers = ports.flatMap((port) => {
    const clients = undo.use(createServiceClients({ address: `127.0.0.1:${port}` }));
    return Array.from({ length: ENROLMENTS_AT_ONCE }, () => work(clients));
  });
  await Promise.all(workers);
}
