import { setTimeout as sleep } from "node:timers/promises";
import { POOLS } from "../support/pool-proxy.ts";
import { floodWithChanges } from "./change-flood.ts";
import type { Random } from "./random.ts";
import type { ReplicaPlace, World } from "./world.ts";

/** As `Reach` and `PlannedFault`, which are among all faults. */
interface PoolReach {
  readonly world: World;
  readonly random: Random;
  readonly leaseMs: number;
  readonly replicas: readonly ReplicaPlace[];
}
interface PoolFault {
  readonly claws: readonly never[];
  readonly replicas: readonly ReplicaPlace[];
  readonly database: boolean;
  readonly idle: boolean;
  run(): Promise<void>;
}

/** Faults of one pool of connections, and of one agent. */
export const POOL_FAULTS: Readonly<Record<string, (reach: PoolReach) => PoolFault>> = {
  /** One of a replica's pools to the database carries nothing for a while; then the buffered bytes arrive. */
  "stall-pool": ({ world, random, leaseMs, replicas }) => {
    const [hit] = random.sample(replicas, 1);
    const pool = random.pick(POOLS);
    const forMs = random.between(0.3, 2) * leaseMs;
    return {
      claws: [],
      replicas: hit === undefined ? [] : [hit],
      database: false,
      idle: hit === undefined,
      async run() {
        if (hit === undefined) return;
        const what = `${pool} of ${hit.process.name} for ${Math.round(forMs)} ms`;
        const begun = world.log.begin({ kind: "stall-pool", what, outage: true });
        hit.pools.stall(pool);
        await sleep(forMs);
        hit.pools.resume(pool);
        world.log.end(begun);
      },
    };
  },
  /** Thousands of changes of one agent, by a client that disconnects before the responses. */
  "many-changes": ({ world, random }) => {
    const [hit] = random.sample(world.replicas, 1);
    const agentId = random.pick(world.floodAgents);
    return {
      claws: [],
      replicas: [],
      database: false,
      idle: hit === undefined,
      async run() {
        const begun = world.log.begin({ kind: "many-changes", what: `${agentId} at ${hit?.process.name}` });
        const port = hit?.process.port;
        if (port !== undefined) await floodWithChanges(port, agentId);
        world.log.end(begun);
      },
    };
  },
};
