/**
 * A watcher that misbehaves: it stalls, disconnects, resumes elsewhere, and sometimes from an earlier position.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { History, MessageJson } from "./history.ts";
import type { Filter } from "./log.ts";
import type { Random } from "./random.ts";
import { type OpenWatch, openWatch, WireError } from "./wire.ts";
import { AGENT_IDS, CLAWS } from "./writers.ts";

const STATUSES = ["idle", "busy", "on_call", "offline"] as const;
/** The permitted ends of a watch. */
const FAIR_ENDS = /DRAINING|DATABASE_UNAVAILABLE|WATCHER_TOO_SLOW|unavailable|canceled/;
/**
 * The errors for a watcher whose position was lost, and, when a replica detects a change of the log, for all
 * its watchers.
 */
const LOST_HISTORY = /REVISION_COMPACTED|REVISION_IN_FUTURE/;
/** The silence, also of bookmarks, after which the stream is dead. */
const SILENCE_MS = 15_000;

export function randomFilter(random: Random, users: readonly string[]): Filter {
  if (random.chance(0.15)) return {};
  const filter: { -readonly [Field in keyof Filter]: Filter[Field] } = {};
  if (random.chance(0.35)) filter.agentIds = random.some(AGENT_IDS, 0.3);
  if (random.chance(0.4)) filter.clawIdentifiers = random.some(CLAWS, 0.4);
  if (random.chance(0.4)) filter.statuses = random.some(STATUSES, 0.4);
  if (users.length > 0 && random.chance(0.15)) filter.userIds = random.some(users, 0.3);
  return filter;
}

export interface WatchingOptions {
  readonly random: Random;
  readonly history: History;
  /** Aborted: stop misbehaving, and continue to the end. */
  readonly calm: AbortSignal;
  readonly signal: AbortSignal;
  /** Whether an older state of the database has been restored. Default: false. */
  isRestored?(): boolean;
  bases(): readonly string[];
}

export async function keepWatching(options: WatchingOptions): Promise<void> {
  const { random, history, calm, signal, bases } = options;
  while (!signal.aborted) {
    const there = bases();
    if (there.length === 0) {
      await sleep(20);
      continue;
    }
    if (!calm.aborted) {
      if (random.chance(0.08)) history.forget();
      else if (random.chance(0.15)) history.rewind(random.next());
    }
    await watchOnce(random.pick(there), options);
    await sleep(random.between(5, 60));
  }
}

async function watchOnce(base: string, options: WatchingOptions): Promise<void> {
  const { random, history, calm, signal, isRestored = () => false } = options;
  history.begin();
  const { filter, conflates, revision } = history;
  const request = {
    filter: { ...filter, statuses: filter.statuses?.map((status) => `AGENT_STATUS_${status.toUpperCase()}`) },
    conflate: conflates,
    bookmarkInterval: "1s",
    ...(revision === undefined ? {} : { afterRevision: `${revision}` }),
  };
  let heardAt = performance.now();
  let open = true;
  let stalled = false;
  const watch: OpenWatch = openWatch<MessageJson>(base, request, (message) => {
    heardAt = performance.now();
    // Messages after the cut are not read.
    if (open) history.take(message);
  });
  const cut = () => {
    open = false;
    watch.cut();
  };
  signal.addEventListener("abort", cut, { once: true });
  const end = watch.ended.then((error) => {
    open = false;
    return error;
  });
  while (open) {
    await Promise.race([end, sleep(random.between(50, 400))]);
    if (!open || signal.aborted) break;
    if (calm.aborted) {
      if (stalled) {
        watch.goOn();
        heardAt = performance.now();
      }
      stalled = false;
      if (performance.now() - heardAt > SILENCE_MS) {
        history.problems.push(`${history.name} hears nothing for ${SILENCE_MS} ms on ${base}: ${watch.describe()}`);
        cut();
      }
      continue;
    }
    const dice = random.next();
    if (stalled && dice < 0.25) {
      watch.goOn();
      stalled = false;
      heardAt = performance.now();
    } else if (dice < 0.08) cut();
    else if (dice < 0.2) {
      watch.stall();
      stalled = true;
    }
  }
  signal.removeEventListener("abort", cut);
  const error = await end;
  if (error instanceof WireError && isRestored() && LOST_HISTORY.test(error.text)) {
    history.counts.refusals += 1;
    history.forget();
  } else if (error instanceof WireError && !FAIR_ENDS.test(error.text)) {
    history.problems.push(`${history.name} was refused at ${history.revision}: ${error.text}`);
    history.forget();
  }
}
