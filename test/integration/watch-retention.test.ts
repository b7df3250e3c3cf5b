import { Client } from "pg";
import { describe, expect, test } from "vitest";
import { TransitionRetention } from "../../src/storage/transition-retention.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { by } from "../support/storage.ts";
import { WatchReader } from "../support/watch-reader.ts";
import { startWatchingReplica, type WatchingReplica } from "../support/watching-replica.ts";

const SIZE = 1_000_000n;
const DAY_MS = 86_400_000;
const log = { info: () => undefined };

async function startScene() {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await createTestDatabase());
  const replica = stack.use(await startWatchingReplica(url));
  const everything = stack.move();
  return {
    url,
    replica,
    retention: (limits: { ms?: number; transitions?: number }, database = replica.database) =>
      new TransitionRetention({
        database,
        log,
        graceMs: 20,
        limits: { ms: DAY_MS, transitions: 10_000_000, ...limits },
      }),
    partitions: async () =>
      (
        await replica.query<{ name: string }>(
          "SELECT relname AS name FROM pg_class WHERE relname ~ '^agent_transitions_\\d+$' AND relkind = 'r' ORDER BY 1",
        )
      ).map(({ name }) => BigInt(name.slice("agent_transitions_".length))),
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

let users = 0;
async function create(replica: WatchingReplica): Promise<bigint> {
  users += 1;
  const agent = { agentId: `agent-${users}`, clawIdentifier: "claw" };
  const made = await replica.users.create({ username: `user-${users}`, email: null, displayName: "", agent }, by());
  return made.agent?.revision ?? 0n;
}

/** As if a partition was full: the next transition is the first of the next one. @returns its last revision */
async function fillPartition(replica: WatchingReplica): Promise<bigint> {
  const [row] = await replica.query<{ revision: bigint }>(
    "UPDATE revision_counter SET revision = (revision / $1 + 1) * $1 - 1 RETURNING revision",
    [SIZE],
  );
  return row?.revision ?? 0n;
}

async function resuming(replica: WatchingReplica, afterRevision: bigint): Promise<unknown> {
  await using reader = new WatchReader(replica.watches, { afterRevision });
  await reader.until(({ messages, ended }) => messages.length > 0 || ended).catch(() => undefined);
  return reader.error;
}

const COMPACTED = { reason: "REVISION_COMPACTED" };

describe("the log of transitions", () => {
  test("drops whole partitions with enough newer transitions, and all replicas learn of it", async () => {
    await using scene = await startScene();
    const { replica } = scene;
    await using other = await startWatchingReplica(scene.url, { replica: 2 });
    const first = await create(replica);
    const end = await fillPartition(replica);
    const second = await create(replica);
    const secondEnd = await fillPartition(replica);
    const third = await create(replica);
    await create(replica);
    const before = await scene.partitions();
    expect(before).toHaveLength(5);
    await scene.retention({ transitions: 3 }).run();
    // Two in the newest, one before them: the first is not needed any more.
    expect(await scene.partitions()).toEqual(before.slice(1));
    for (const one of [replica, other]) {
      await expect
        .poll(() => resuming(one, first))
        .toMatchObject({ ...COMPACTED, metadata: { oldestRevision: `${end}` } });
      expect(await resuming(one, end)).toBeUndefined();
      await using reader = new WatchReader(one.watches, { afterRevision: end });
      await reader.until(({ revisions }) => revisions.length === 3);
    }
    await scene.retention({ transitions: 1 }).run();
    expect(await scene.partitions()).toEqual(before.slice(2));
    await expect.poll(() => resuming(other, second)).toMatchObject(COMPACTED);
    expect(await resuming(other, secondEnd)).toBeUndefined();
    // The partition in use stays, whatever it contains.
    await scene.retention({ transitions: 0, ms: 0 }).run();
    expect(await scene.partitions()).toEqual(before.slice(2));
    expect(await resuming(other, third)).toBeUndefined();
    expect(await create(replica)).toBe(third + 2n);
  });

  test("drops old partitions, and none with a young transition", async () => {
    await using scene = await startScene();
    const { replica } = scene;
    const first = await create(replica);
    await fillPartition(replica);
    const second = await create(replica);
    await fillPartition(replica);
    await create(replica);
    const before = await scene.partitions();
    await replica.query(
      "UPDATE agent_transitions SET occurred_at = occurred_at - interval '2 days' WHERE revision <= $1",
      [first],
    );
    await scene.retention({}).run();
    expect(await scene.partitions()).toEqual(before.slice(1));
    await replica.query(
      "UPDATE agent_transitions SET occurred_at = occurred_at - interval '2 days' WHERE revision < $1",
      [second],
    );
    await scene.retention({}).run();
    expect(await scene.partitions()).toEqual(before.slice(1));
  });

  test("drops without waiting for readers or blocking them: the next run finishes an interrupted drop", async () => {
    await using scene = await startScene();
    const { replica } = scene;
    await create(replica);
    await fillPartition(replica);
    await create(replica);
    const before = await scene.partitions();
    const dump = new Client({ connectionString: scene.url });
    await dump.connect();
    await dump.query("BEGIN");
    await dump.query("SELECT count(*) FROM agent_transitions");
    const retention = scene.retention({ transitions: 1 });
    const running = retention.run();
    await expect
      .poll(() => replica.query("SELECT FROM pg_inherits WHERE inhdetachpending"), { timeout: 5_000 })
      .toHaveLength(1);
    const revision = await create(replica);
    await using reader = new WatchReader(replica.watches, { afterRevision: revision - 1n });
    await reader.until(({ revisions }) => revisions.length === 1);
    retention.close();
    await running;
    expect(await scene.partitions()).toEqual(before);
    await dump.query("COMMIT");
    await dump.end();
    await expect
      .poll(async () => {
        await scene.retention({ transitions: 1 }).run();
        return await scene.partitions();
      })
      .toEqual(before.slice(1));
  });

  test("is compacted by one replica at a time", async () => {
    await using scene = await startScene();
    const { replica } = scene;
    await create(replica);
    await fillPartition(replica);
    await create(replica);
    const before = await scene.partitions();
    const holder = new Client({ connectionString: scene.url });
    await holder.connect();
    await holder.query("SELECT pg_advisory_lock(7294116530218403)");
    await scene.retention({ transitions: 1 }).run();
    expect(await scene.partitions()).toEqual(before);
    await holder.end();
    await Promise.all([scene.retention({ transitions: 1 }).run(), scene.retention({ transitions: 1 }).run()]);
    expect(await scene.partitions()).toEqual(before.slice(1));
  });
});
