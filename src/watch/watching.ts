import { FairSemaphore } from "../../common/scheduling/fair-semaphore.ts";
import type { WakeFollowing } from "../domain/wake-directory.ts";
import type { WatchMessage, WatchQuery } from "../domain/watch-message.ts";
import type { Database } from "../storage/database.ts";
import { Notifications } from "../storage/notifications.ts";
import { TransitionLog } from "../storage/transition-log.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import { ChangeFeed, type FeedLog } from "./change-feed.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { Hub, RING_CAPACITY } from "./hub.ts";
import { SharedPages } from "./shared-pages.ts";
import { WakeFollowers } from "./wake-followers.ts";
import { WatchMetrics } from "./watch-metrics.ts";
import { watchStream } from "./watch-stream.ts";
import { QUEUE_LIMIT } from "./watcher.ts";

/** Connections for reads of watchers, of the four in the pool. The feed and the replica itself use the others. */
const READERS = 2;
const PAGE = 1_000;
/** Watches that never ended would stay at their replica: after a rolling restart, at the first replica that was ready. */
export const MAX_AGE_MS = 30 * 60_000;

export interface WatchingOptions {
  readonly database: Pick<Database, "feed" | "beats" | "newClient" | "clock">;
  readonly log: FeedLog;
  /** Default: metrics that nothing reads. */
  readonly metrics?: Metrics;
  /** Transitions kept in memory. Default 20 000. */
  readonly ringCapacity?: number;
  /** Changes that wait for one watcher at most. Default 10 000. */
  readonly queueLimit?: number;
  /** Agents, or transitions, in one read. Default 1 000. */
  readonly pageSize?: number;
  /** The maximum age of a watch, give or take a quarter, in milliseconds. Default 30 min. */
  readonly maxAgeMs?: number | undefined;
}

/** The watches of one replica, with the feed that serves them. */
export interface Watching extends AsyncDisposable {
  /** The reader of the log, for other listeners. */
  readonly feed: ChangeFeed;
  readonly watches: {
    /**
     * Ends when `signal` is aborted; holds no resources before it is iterated. `connection`: any object that identifies the
     * connection. Reads of one connection wait for each other, and not for those of others. Default: one of its own.
     *
     * @throws Refusal REVISION_COMPACTED, REVISION_IN_FUTURE, WATCHER_TOO_SLOW, DRAINING (also by age), DATABASE_UNAVAILABLE (only
     * before the first message)
     */
    watch(query: WatchQuery, signal: AbortSignal, connection?: object): AsyncIterable<WatchMessage>;
    /** The number of open watches. */
    readonly size: number;
  };
  readonly wakes: WakeFollowing;
  /** This replica committed transitions: wakes its own feed, and those of the other replicas. */
  notifyCommitted(): void;
  /** Resolves when watches can be served. Waits for a database that is away. */
  start(): Promise<void>;
  /** Ends all watches with DRAINING and rejects new ones. The feed goes on. */
  drain(): void;
  /** Drains, and stops everything. May be called again. */
  close(): Promise<void>;
}

export function createWatching(options: WatchingOptions): Watching {
  const { database, log, ringCapacity = RING_CAPACITY, queueLimit = QUEUE_LIMIT, pageSize = PAGE } = options;
  const { maxAgeMs = MAX_AGE_MS } = options;
  const source = new TransitionLog(database.feed);
  const feed = new ChangeFeed({ source, log });
  const hub = new Hub(ringCapacity);
  feed.subscribe(hub);
  const wakes = new WakeFollowers(database, maxAgeMs);
  feed.subscribe(wakes);
  const wakeFeed = () => feed.wake();
  const notifications = new Notifications({ database, log, onHint: wakeFeed });
  const semaphore = new FairSemaphore(READERS);
  const dependencies: WatchDependencies = {
    hub,
    source: new SharedPages(source),
    semaphore,
    wakeFeed,
    pageSize,
    queueLimit,
    maxAgeMs,
    metrics: new WatchMetrics(options.metrics ?? new Metrics(), () => database.clock.now()),
  };
  const drain = () => {
    hub.drain();
    wakes.drain();
  };
  const close = async () => {
    drain();
    await Promise.all([feed.close(), notifications.close()]);
  };
  return {
    feed,
    watches: {
      watch: (query, signal, connection) => watchStream(query, signal, dependencies, connection),
      get size() {
        return hub.size;
      },
    },
    notifyCommitted() {
      feed.wake();
      notifications.notify();
    },
    async start() {
      notifications.start();
      await feed.start();
    },
    wakes,
    drain,
    close,
    [Symbol.asyncDispose]: close,
  };
}
