import { setTimeout as sleep } from "node:timers/promises";
import type { Claw } from "./claw.ts";
import { type FloodKind, flood } from "./flood.ts";
import { gzipFlood } from "./gzip-flood.ts";
import { POOL_FAULTS } from "./pool-faults.ts";
import type { Random } from "./random.ts";
import type { ReplicaPlace, World } from "./world.ts";

/** The targets of a fault: those that no other fault uses at this moment. */
export interface Reach {
  readonly world: World;
  readonly random: Random;
  readonly leaseMs: number;
  readonly claws: readonly Claw[];
  readonly replicas: readonly ReplicaPlace[];
}

/** Reserves the targets of a fault and its plan. Resolves when the fault is over and undone. */
export interface PlannedFault {
  readonly claws: readonly Claw[];
  readonly replicas: readonly ReplicaPlace[];
  readonly database: boolean;
  /** No target was free. */
  readonly idle: boolean;
  run(): Promise<void>;
}

type Plan = (reach: Reach) => PlannedFault;

/** The durations of faults, in leases. Below one, no effect may be visible. */
const SHORT = [0.1, 0.4] as const;
const LONG = [1.3, 2.2] as const;
/** The leases of an outage that must outlast every guard set before it began. */
const LONGER_THAN_A_GUARD = [1.8, 2.4] as const;
/**
 * A failed replica is adopted within less of a lease: two intervals, and two pauses of a quarter of an interval
 * each.
 */
const ADOPTED = 0.9;
/** With the brake engaged, a dead fleet has six leases; one more to observe it. */
const BRAKED = 7;

/** All faults by name. Each chooses, from the seed alone, its targets and its duration. */
export const FAULTS: Readonly<Record<string, Plan>> = {
  ...POOL_FAULTS,
  /** Claws fail. Some return before their leases end, which must have no effect; others do not. */
  "kill-claw": ({ world, random, leaseMs, claws }) => {
    const hit = random.sample(claws, random.chance(0.3) ? 2 : 1);
    const [from, to] = random.chance(0.4) ? SHORT : LONG;
    const leases = random.between(from, to);
    return onClaws("kill-claw", hit, world, leases, leaseMs, {
      begin: (claw) => claw.kill(),
      end: (claw) => claw.start(),
    });
  },
  /** More than a fifth of the claws fail within a moment: a mass silence. */
  "kill-many": ({ world, random, leaseMs, claws }) => {
    const hit = random.sample(claws, Math.max(3, Math.ceil(world.claws.length * 0.35)));
    return onClaws("kill-many", hit, world, BRAKED, leaseMs, {
      begin: (claw) => claw.kill(),
      end: (claw) => claw.start(),
    });
  },
  /** Claws say goodbye. */
  leave: ({ world, random, leaseMs, claws }) =>
    onClaws("leave", random.sample(claws, 1), world, random.between(...SHORT), leaseMs, {
      begin: (claw) => claw.leave(),
      end: (claw) => claw.start(),
    }),
  /** A claw sends and nothing arrives: a network that drops packets. */
  silence: ({ world, random, leaseMs, claws }) =>
    onClaws("silence", random.sample(claws, 1), world, random.between(...LONG), leaseMs, {
      begin: (claw) => claw.silence(),
      end: (claw) => claw.unsilence(),
    }),
  /** Connections break. */
  drop: ({ world, random, leaseMs, claws }) =>
    onClaws("drop", random.sample(claws, 5), world, 0, leaseMs, {
      begin: (claw) => void claw.proxy.drop(),
      end: () => undefined,
    }),
  /** Open connections carry nothing for a while; then the buffered bytes arrive, or the connections break. */
  stall: ({ world, random, leaseMs, claws }) => {
    const resumes = random.chance(0.7);
    return onClaws("stall", random.sample(claws, 3), world, random.between(0.3, 1.5), leaseMs, {
      begin: (claw) => void claw.proxy.stall(),
      end: (claw) => void (resumes ? claw.proxy.resume() : claw.proxy.drop()),
    });
  },
  /** A second process of a claw takes its agents while the first still beats. */
  takeover: ({ world, random, leaseMs, claws }) => {
    const both = random.between(0.1, 1) * leaseMs;
    const hit = random.sample(claws, 2);
    return {
      ...inHand({ claws: hit }),
      run: () =>
        during(world, { kind: "takeover", what: names(hit), claws: indexes(hit) }, async () => {
          await Promise.all(hit.map((claw) => claw.takeOver(sleep(both))));
        }),
    };
  },
  /** A client misbehaves, on a connection of its own. */
  flood: ({ world, random, leaseMs }) => {
    const kind = random.pick<FloodKind>(["reports", "isolated", "streams", "giants"]);
    const [hit] = random.sample(world.replicas, 1);
    const forMs = random.between(0.5, 1) * leaseMs;
    return {
      ...inHand({}),
      run: () =>
        during(world, { kind: "flood", what: `${kind} at ${hit?.process.name}` }, async () => {
          const port = hit?.process.port;
          if (port !== undefined) await flood(kind, port, world.floodAgents, forMs);
        }),
    };
  },
  /** A client sends messages that decompress to a thousand times their size. */
  "gzip-flood": ({ world, random, leaseMs }) => {
    const [hit] = random.sample(world.replicas, 1);
    const forMs = random.between(0.5, 1) * leaseMs;
    return {
      ...inHand({}),
      run: () =>
        during(world, { kind: "gzip-flood", what: `at ${hit?.process.name}` }, async () => {
          const port = hit?.process.port;
          if (port !== undefined) await gzipFlood(port, forMs);
        }),
    };
  },
  /** `kill -9`, and another start. */
  "kill-replica": ({ world, random, leaseMs, replicas }) => {
    const hit = random.sample(replicas, 1);
    const downMs = random.between(0.1, 1.5) * leaseMs;
    return onReplicas("kill-replica", hit, world, async () => {
      await Promise.all(hit.map(({ process }) => process.kill()));
      await sleep(downMs);
      await startAgain(hit);
    });
  },
  /** All replicas fail; none is up until they are back. */
  "kill-all": ({ world, random, leaseMs }) => {
    const hit = world.replicas;
    const downMs = random.between(0.3, 1.5) * leaseMs;
    return onReplicas("kill-all", hit, world, async () => {
      await Promise.all(hit.map(({ process }) => process.kill()));
      await sleep(downMs);
      await startAgain(hit);
    });
  },
  /** SIGTERM, one replica after the other: a rolling restart. */
  roll: ({ world }) => {
    const hit = world.replicas;
    return onReplicas("roll", hit, world, async () => {
      for (const { process } of hit) {
        await process.terminate();
        await startAgain([{ process }]);
      }
    });
  },
  /** SIGSTOP and SIGCONT: a suspended process, which continues without notice. */
  freeze: ({ world, random, leaseMs, replicas }) => {
    const hit = random.sample(replicas, random.chance(0.2) ? 3 : 1);
    const forMs = random.between(0.3, 2) * leaseMs;
    return onReplicas("freeze", hit, world, async () => {
      for (const { process } of hit) process.freeze();
      await sleep(forMs);
      for (const { process } of hit) process.thaw();
    });
  },
  /** PostgreSQL is killed with all its children, and recovers. */
  "kill-database": ({ world, random, leaseMs }) => {
    const downMs = random.between(0.1, 1.5) * leaseMs;
    return {
      ...inHand({ database: true }),
      run: () =>
        during(world, { kind: "kill-database", what: `for ${Math.round(downMs)} ms`, outage: true }, async () => {
          await world.database.kill();
          await sleep(downMs);
          await world.database.restart();
        }),
    };
  },
  /**
   * One replica loses its path to the database; the others keep theirs. Connections are reset and refused, or
   * silently dropped.
   */
  "cut-replica": ({ world, random, leaseMs, replicas }) => {
    const hit = random.sample(replicas, 1);
    const told = random.chance(0.5);
    const forMs = random.between(0.3, 2) * leaseMs;
    return onReplicas(told ? "cut-replica" : "swallow-replica", hit, world, async () => {
      for (const { toDatabase } of hit) told ? toDatabase.cut() : toDatabase.swallow();
      await sleep(forMs);
      for (const { toDatabase } of hit) toDatabase.mend();
    });
  },
  /**
   * A replica fails, another one adopts its agents, and then the adopter loses its database for longer than the
   * guard of the adoption. The claws of the failed replica have no network until then, so the adopter never
   * holds their agents.
   */
  "adopt-and-cut": ({ world, random, leaseMs, claws, replicas }) => {
    const order = random.sample(replicas, replicas.length);
    // Either one replica is left, or all that are left lose the database together, or the third one never loses
    // it.
    const [killed, adopters] = random.pick([
      [order.slice(0, -1), order.slice(-1)],
      [order.slice(0, 1), order.slice(1)],
      [order.slice(0, 1), order.slice(1, 2)],
    ] as const);
    const told = random.chance(0.5);
    const forMs = random.between(...LONGER_THAN_A_GUARD) * leaseMs;
    const ports = killed.map(({ process }) => process.port);
    const orphaned = claws.filter(
      ({ proxy }) => proxy.ports.length > 0 && proxy.ports.every((port) => ports.includes(port)),
    );
    const places = (hit: readonly ReplicaPlace[]) => hit.map(({ process }) => process.name).join(" and ");
    const what = `${places(killed)} dead, then ${places(adopters)} ${told ? "cut" : "swallowed"} for ${Math.round(forMs)} ms`;
    return {
      ...inHand({ claws: orphaned, replicas, database: true, idle: replicas.length < world.replicas.length }),
      run: () =>
        during(world, { kind: "adopt-and-cut", what, outage: true, claws: indexes(orphaned) }, async () => {
          for (const { proxy } of orphaned) proxy.cut();
          await Promise.all(killed.map(({ process }) => process.kill()));
          await sleep(ADOPTED * leaseMs);
          for (const { toDatabase } of adopters) told ? toDatabase.cut() : toDatabase.swallow();
          for (const { proxy } of orphaned) proxy.mend();
          await sleep(forMs);
          for (const { toDatabase } of adopters) toDatabase.mend();
          await startAgain(killed);
        }),
    };
  },
  /** The connections of a replica to the database break, and it may open others at once. */
  "drop-database": ({ world, random, replicas }) => {
    const hit = random.sample(replicas, 1);
    return onReplicas("drop-database", hit, world, async () => {
      for (const { toDatabase } of hit) toDatabase.drop();
    });
  },
};

function onClaws(
  kind: string,
  hit: readonly Claw[],
  world: World,
  leases: number,
  leaseMs: number,
  { begin, end }: { begin: (claw: Claw) => void | Promise<void>; end: (claw: Claw) => void | Promise<void> },
): PlannedFault {
  const what = leases === 0 ? names(hit) : `${names(hit)} for ${leases.toFixed(1)} leases`;
  return {
    ...inHand({ claws: hit, idle: hit.length === 0 }),
    run: () =>
      during(world, { kind, what, claws: indexes(hit) }, async () => {
        await Promise.all(hit.map(begin));
        await sleep(leases * leaseMs);
        await Promise.all(hit.map(end));
      }),
  };
}

function onReplicas(kind: string, hit: readonly ReplicaPlace[], world: World, act: () => Promise<void>): PlannedFault {
  const what = hit.map(({ process }) => process.name).join(", ");
  return {
    ...inHand({ replicas: hit, idle: hit.length === 0 }),
    run: () => during(world, { kind, what, outage: true }, act),
  };
}

async function startAgain(hit: readonly Pick<ReplicaPlace, "process">[]): Promise<void> {
  for (const { process } of hit) process.start();
  await Promise.all(hit.map(({ process }) => process.serving()));
}

async function during(
  { log }: World,
  fault: Parameters<World["log"]["begin"]>[0],
  act: () => Promise<void>,
): Promise<void> {
  const begun = log.begin(fault);
  try {
    await act();
  } finally {
    log.end(begun);
  }
}

function inHand(what: Partial<Omit<PlannedFault, "run">>): Omit<PlannedFault, "run"> {
  return { claws: [], replicas: [], database: false, idle: false, ...what };
}

function names(claws: readonly Claw[]): string {
  return claws.map(({ identifier }) => identifier).join(", ");
}

function indexes(claws: readonly Claw[]): number[] {
  return claws.map(({ index }) => index);
}
