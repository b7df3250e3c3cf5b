import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { expect, vi } from "vitest";
import type { AgentStatus } from "../../common/contract/enum-names.ts";
import { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";
import type { Watches } from "../../src/rpc/handlers/backend.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";
import { ChangeFeed } from "../../src/watch/change-feed.ts";
import type { WatchDependencies } from "../../src/watch/dependencies.ts";
import { Hub } from "../../src/watch/hub.ts";
import { SharedPages } from "../../src/watch/shared-pages.ts";
import { WatchMetrics } from "../../src/watch/watch-metrics.ts";
import { watchStream } from "../../src/watch/watch-stream.ts";
import { FakeLog } from "./fake-log.ts";
import { PATIENCE } from "./until.ts";
import { WatchReader, type WatchReaderOptions } from "./watch-reader.ts";

const quiet = { info: () => undefined, warn: () => undefined };

export interface SceneOptions {
  readonly ringCapacity?: number;
  readonly pageSize?: number;
  readonly queueLimit?: number;
  readonly maxAgeMs?: number;
}

/** The watching part of a replica, on a database in memory. */
export async function startScene(options: SceneOptions = {}) {
  const { ringCapacity = 1_000, pageSize = 3, queueLimit = 100, maxAgeMs = 3_600_000 } = options;
  const source = new FakeLog();
  const feed = new ChangeFeed({ source, log: quiet });
  const hub = new Hub(ringCapacity);
  feed.subscribe(hub);
  await feed.start();
  const dependencies: WatchDependencies = {
    hub,
    source: new SharedPages(source),
    semaphore: new FairSemaphore(2),
    wakeFeed: () => feed.wake(),
    pageSize,
    queueLimit,
    maxAgeMs,
    metrics: new WatchMetrics(new Metrics(), () => Date.now() * 1_000),
  };
  const watches: Watches = { watch: (query, signal) => watchStream(query, signal, dependencies) };
  return {
    source,
    feed,
    hub,
    watches,
    read: (options?: WatchReaderOptions) => new WatchReader(watches, options),
    /** Lets the feed read all committed transitions. */
    async settle() {
      feed.wake();
      await vi.waitFor(() => expect(hub.position).toBe(source.revision), PATIENCE);
    },
    [Symbol.asyncDispose]: () => feed.close(),
  };
}

const STATUSES: readonly AgentStatus[] = ["idle", "busy", "offline"];

/** Makes a random change. */
export function changeSomething(source: FakeLog, random: () => number): void {
  const pick = <Item>(items: readonly Item[]): Item | undefined => items[Math.floor(random() * items.length)];
  const agent = pick([...source.agents.values()]);
  const dice = random();
  if (agent === undefined || (dice < 0.2 && source.agents.size < 15)) {
    const taken = new Set([...source.agents.values()].map(({ agentId }) => agentId));
    const free = Array.from({ length: 20 }, (_, n) => `agent-${n}`).filter((agentId) => !taken.has(agentId));
    source.create(pick(free) ?? "none", random() < 0.5 ? "claw-a" : "claw-b");
  } else if (dice < 0.3) {
    source.delete(agent.id);
  } else if (dice < 0.5) {
    source.change(agent.id, { clawIdentifier: agent.clawIdentifier === "claw-a" ? "claw-b" : "claw-a" });
  } else {
    source.change(agent.id, { status: pick(STATUSES) ?? "idle" });
  }
}

/** Yields for a few turns of the event loop, sometimes for long enough that the feed polls in between. */
export function turnsOf(random: () => number): (most: number) => Promise<void> {
  return async (most) => {
    if (random() < 0.1) await sleep(random() * 8);
    for (let left = Math.floor(random() * most); left > 0; left -= 1) await turn();
  };
}
