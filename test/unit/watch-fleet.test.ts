import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import type { AgentStatus, Unknown } from "../../common/contract/enum-names.ts";
import type { ExpiryBrake, Fleet, StatusTally } from "../../src/domain/directories.ts";
import { type AgentFilter, EVERY_AGENT, predicateOf } from "../../src/domain/filter.ts";
import { FleetCounts } from "../../src/domain/fleet-counts.ts";
import type { FleetWatchMessage } from "../../src/domain/watch-message.ts";
import { ChangeFeed } from "../../src/watch/change-feed.ts";
import { FleetWatches, type FleetWatchesOptions } from "../../src/watch/fleet-watches.ts";
import { FakeLog, randomOf } from "../support/fake-log.ts";
import { PATIENCE } from "../support/until.ts";
import { changeSomething } from "../support/watch-scene.ts";

const RELEASED: ExpiryBrake = { engagedAt: null, heldBack: 0n };
const quiet = { info: () => undefined, warn: () => undefined };

/** Counts all agents of the database in memory. */
function countAll(source: FakeLog, filter: AgentFilter, brake = RELEASED): Fleet {
  const statuses = new Map<AgentStatus | Unknown, bigint>();
  const claws = new Map<string, { statuses: Map<AgentStatus | Unknown, bigint> }>();
  for (const { status, clawIdentifier } of [...source.agents.values()].filter(predicateOf(filter))) {
    const claw = claws.get(clawIdentifier) ?? { statuses: new Map<AgentStatus | Unknown, bigint>() };
    claws.set(clawIdentifier, claw);
    for (const tally of [statuses, claw.statuses]) tally.set(status, (tally.get(status) ?? 0n) + 1n);
  }
  return { statuses, claws, brake, revision: source.revision };
}

async function startScene(options: Partial<FleetWatchesOptions> = {}) {
  const source = new FakeLog();
  const feed = new ChangeFeed({ source, log: quiet });
  const brake = { ...RELEASED };
  let counted = 0;
  const watches = new FleetWatches({
    count: async (filter) => {
      counted += 1;
      await source.delay();
      if (source.failure !== undefined) throw source.failure;
      const fleet = countAll(source, filter, brake);
      await source.delay();
      return fleet;
    },
    brake: () => brake,
    maxAgeMs: 3_600_000,
    messageEveryMs: 5,
    ...options,
  });
  feed.subscribe(watches);
  await feed.start();
  return {
    source,
    feed,
    watches,
    brake,
    get counted() {
      return counted;
    },
    [Symbol.asyncDispose]: () => feed.close(),
  };
}

/** A client: replaces the counts that a message has. */
class Client {
  readonly claws = new Map<string, ReadonlyMap<AgentStatus | Unknown, bigint>>();
  readonly messages: FleetWatchMessage[] = [];
  error: unknown;
  readonly #stop = new AbortController();
  readonly #reading: Promise<void>;

  constructor(watches: FleetWatches, filter: AgentFilter = EVERY_AGENT, pauseMs = 0) {
    this.#reading = this.#read(watches, filter, pauseMs);
  }

  get last(): FleetWatchMessage | undefined {
    return this.messages.at(-1);
  }

  async #read(watches: FleetWatches, filter: AgentFilter, pauseMs: number): Promise<void> {
    try {
      for await (const message of watches.watch({ filter, bookmarkMs: 60_000 }, this.#stop.signal)) {
        this.messages.push({ ...message, all: copyOf(message.all) });
        for (const [claw, { statuses }] of message.claws) {
          if (statuses.size === 0) this.claws.delete(claw);
          else this.claws.set(claw, new Map(statuses));
        }
        if (pauseMs > 0) await sleep(pauseMs);
      }
    } catch (error) {
      this.error = error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#reading;
  }
}

function copyOf({ statuses, suspects }: StatusTally): StatusTally {
  return { statuses: new Map(statuses), suspects: new Map(suspects) };
}

const plain = (tallies: ReadonlyMap<string, StatusTally>) =>
  new Map([...tallies].map(([claw, { statuses }]) => [claw, statuses]));

describe("FleetWatches", () => {
  it.each([1, 2, 3, 4, 5, 6])("ends with the counts of the database after random changes (seed %i)", async (seed) => {
    const random = randomOf(seed);
    await using scene = await startScene();
    const { source, feed, watches } = scene;
    source.delay = () => sleep(random() * 4);
    for (let change = 0; change < 20; change += 1) changeSomething(source, random);
    const filters: AgentFilter[] = [
      EVERY_AGENT,
      { ...EVERY_AGENT, statuses: ["busy"] },
      { ...EVERY_AGENT, clawIdentifiers: ["claw-a"] },
    ];
    const clients = filters.map((filter, index) => new Client(watches, filter, index * 3));
    await using undo = new AsyncDisposableStack();
    for (const client of clients) undo.use(client);
    for (let change = 0; change < 150; change += 1) {
      changeSomething(source, random);
      if (random() < 0.2) feed.wake();
      if (random() < 0.1) await sleep(random() * 4);
    }
    // The last change is counted by each of them, so that each gets a message with the last revision.
    source.change(source.create("the-last", "claw-a"), { status: "busy" });
    feed.wake();
    await vi.waitFor(() => {
      for (const client of clients) expect(client.last?.revision).toBe(source.revision);
    }, PATIENCE);
    filters.forEach((filter, index) => {
      const expected = countAll(source, filter);
      expect(clients[index]?.claws).toEqual(plain(expected.claws));
      expect(clients[index]?.last?.all.statuses).toEqual(expected.statuses);
    });
    // Transitions did the rest.
    expect(scene.counted).toBe(clients.length);
  });

  it("sends each message at most once in the interval", async () => {
    await using scene = await startScene({ messageEveryMs: 3_600_000 });
    const { source, feed, watches } = scene;
    await using client = new Client(watches);
    await vi.waitFor(() => expect(client.messages).toHaveLength(1), PATIENCE);
    for (let change = 0; change < 50; change += 1) source.create(`agent-${change}`);
    feed.wake();
    await using other = new Client(watches);
    await vi.waitFor(() => expect(other.last?.revision).toBe(source.revision), PATIENCE);
    expect(client.messages).toHaveLength(1);
  });

  it("sends the state of many claws in parts, and the revision with the last of them", async () => {
    await using scene = await startScene();
    const { source, watches } = scene;
    for (let agent = 0; agent < 2_500; agent += 1) source.create(`agent-${agent}`, `claw-${agent}`);
    await using client = new Client(watches);
    await vi.waitFor(() => expect(client.claws.size).toBe(2_500), PATIENCE);
    expect(client.messages.map(({ revision, claws }) => [revision, claws.size])).toEqual([
      [0n, 1_000],
      [0n, 1_000],
      [source.revision, 500],
    ]);
  });

  it("counts again after a revision gap", async () => {
    await using scene = await startScene();
    const { source, feed, watches } = scene;
    const id = source.create("agent-1");
    await using client = new Client(watches);
    await vi.waitFor(() => expect(client.claws.size).toBe(1), PATIENCE);
    // An older state of the database: the agent is gone, without a transition.
    source.agents.delete(id);
    source.gaps.push({ from: source.revision, to: source.revision + 1n });
    source.revision += 1n;
    feed.wake();
    await vi.waitFor(() => expect(client.claws.size).toBe(0), PATIENCE);
  });

  it("counts suspects when the brake engages, and again when it is released", async () => {
    await using scene = await startScene({ suspectsEveryMs: 3_600_000 });
    const { watches, brake } = scene;
    await using client = new Client(watches);
    await vi.waitFor(() => expect(client.messages).toHaveLength(1), PATIENCE);
    Object.assign(brake, { engagedAt: 7, heldBack: 3n });
    await vi.waitFor(() => expect(client.last?.brake).toMatchObject({ engagedAt: 7, heldBack: 3n }), PATIENCE);
    await vi.waitFor(() => expect(scene.counted).toBe(2), PATIENCE);
    Object.assign(brake, RELEASED);
    await vi.waitFor(() => expect(client.last?.brake?.engagedAt).toBeNull(), PATIENCE);
    await vi.waitFor(() => expect(scene.counted).toBe(3), PATIENCE);
  });

  it("fails before the state, and goes on after it, while the database is away", async () => {
    await using scene = await startScene();
    const { source, feed, watches } = scene;
    await using client = new Client(watches);
    await vi.waitFor(() => expect(client.messages).toHaveLength(1), PATIENCE);
    source.failure = new Error("the connection is lost");
    await using late = new Client(watches);
    await vi.waitFor(() => expect(late.error).toBe(source.failure), PATIENCE);
    source.failure = undefined;
    source.create("agent-1");
    feed.wake();
    await vi.waitFor(() => expect(client.claws.size).toBe(1), PATIENCE);
    expect(client.error).toBeUndefined();
  });

  it("does not count for a caller that left before its turn", async () => {
    await using scene = await startScene();
    const { source, watches } = scene;
    const { promise, resolve } = Promise.withResolvers<void>();
    source.delay = () => promise;
    await using first = new Client(watches);
    await vi.waitFor(() => expect(scene.counted).toBe(1), PATIENCE);
    await new Client(watches)[Symbol.asyncDispose]();
    await using last = new Client(watches);
    resolve();
    await vi.waitFor(() => expect(last.messages).toHaveLength(1), PATIENCE);
    expect(first.messages).toHaveLength(1);
    expect(scene.counted).toBe(2);
  });

  it("ends with DRAINING: by its age, and when the replica stops", async () => {
    await using old = await startScene({ maxAgeMs: 1 });
    await using aged = new Client(old.watches);
    await vi.waitFor(() => expect(aged.error).toMatchObject({ reason: "DRAINING" }), PATIENCE);
    await using scene = await startScene();
    await using client = new Client(scene.watches);
    await vi.waitFor(() => expect(client.messages).toHaveLength(1), PATIENCE);
    scene.watches.drain();
    await vi.waitFor(() => expect(client.error).toMatchObject({ reason: "DRAINING" }), PATIENCE);
    await using refused = new Client(scene.watches);
    await vi.waitFor(() => expect(refused.error).toMatchObject({ reason: "DRAINING" }), PATIENCE);
  });
});

describe("FleetCounts", () => {
  it("never counts more suspects than agents", () => {
    const counts = new FleetCounts(() => true);
    const tally: StatusTally = { statuses: new Map([["busy", 2n]]), suspects: new Map([["busy", 2n]]) };
    counts.replace({ ...tally, claws: new Map([["claw-a", tally]]) });
    const source = new FakeLog();
    source.change(source.create("agent-1"), { status: "busy" });
    source.change(1n, { status: "offline" });
    const [last] = source.transitions.slice(-1);
    if (last === undefined) throw new Error("there is no transition");
    counts.apply(last);
    expect(counts.all.statuses.get("busy")).toBe(1n);
    expect(counts.all.suspects?.get("busy")).toBe(1n);
  });
});
