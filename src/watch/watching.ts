import type { WatchMessage, WatchQuery } from "../domain/watch-message.ts";
import { FairSemaphore } from "../scheduling/fair-semaphore.ts";
import type { Database } from "../storage/database.ts";
import { Notifications } from "../storage/notifications.ts";
import { TransitionLog } from "../storage/transition-log.ts";
import { ChangeFeed, type FeedLog } from "./change-feed.ts";
import type { WatchDependencies } from "./dependencies.ts";
import { Hub, RING_CAPACITY } from "./hub.ts";
import { SharedPages } from "./shared-pages.ts";
import { watchStream } from "./watch-stream.ts";
import { QUEUE_LIMIT } from "./watcher.ts";

/** Of the four connections of the pool: the others are the feed's and the replica's own. */
const READERS = 2;
const PAGE = 1_000;
/** Streams that never end stay on the replica that they began on: after a rolling restart on the first that was ready. */
const MAX_AGE_MS = 30 * 60_000;

export interface WatchingOptions {
  readonly database: Pick<Database, "feed" | "beats" | "newClient">;
  readonly log: FeedLog;
  /** Transitions kept in memory; 20 000 unless told. */
  readonly ringCapacity?: number;
  /** Changes that wait for one watcher at most; 10 000 unless told. */
  readonly queueLimit?: number;
  /** Agents, or transitions, read at once; 1 000 unless told. */
  readonly pageSize?: number;
  /** How old a watch gets, give or take a quarter, in milliseconds; 30 min unless told. */
  readonly maxAgeMs?: number | undefined;
}

/** Everything that watches, of one replica. */
export interface Watching extends AsyncDisposable {
  /** The reader of the log, for others who follow transitions. */
  readonly feed: ChangeFeed;
  readonly watches: {
    /**
     * Ends when `signal` is aborted; holds nothing before it is iterated. `connection`: any object that stands for it; those
     * of one wait for each other, and others do not wait for them. Default: it has one of its own.
     *
     * @throws Refusal REVISION_COMPACTED, REVISION_IN_FUTURE, WATCHER_TOO_SLOW, DRAINING (also by age), DATABASE_UNAVAILABLE (only
     * before anything was said)
     */
    watch(query: WatchQuery, signal: AbortSignal, connection?: object): AsyncIterable<WatchMessage>;
    /** How many are open. */
    readonly size: number;
  };
  /** This replica committed transitions: its watchers and the other replicas need not wait for a poll. */
  notifyCommitted(): void;
  /** Resolves when watches can be served, which waits for a database that is away. */
  start(): Promise<void>;
  /** Ends all watches with DRAINING and refuses new ones; the feed goes on. */
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
  };
  const close = async () => {
    hub.drain();
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
    drain: () => hub.drain(),
    close,
    [Symbol.asyncDispose]: close,
  };
}
