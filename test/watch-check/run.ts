/**
 * One run of the checker: writers, watchers and disturbances over some replicas; then a quiet time; then it
 * compares every watcher's history with the log.
 */
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { copyDatabase, rowsOf, swapIn } from "../support/database-swap.ts";
import { History, type LostTail } from "./history.ts";
import { type LogRow, readLog } from "./log.ts";
import { Random } from "./random.ts";
import { Cluster, Replica, type ReplicaLimits } from "./stage.ts";
import { keepWatching, randomFilter } from "./watching.ts";
import { write } from "./writers.ts";

/** A run with fewer changes proves nothing; it continues for a while to get there. */
const FEWEST_CHANGES = 150;
const EXTRA_MS = 60_000;
/** The time for watchers to reach the end of the log when all is quiet. No promise: the machine may be busy. */
const CATCH_UP_MS = 60_000;

export interface RunOptions {
  readonly seed: number;
  readonly replicas: number;
  readonly watchers: number;
  readonly writers: number;
  /** The duration of disturbances. */
  readonly disturbedMs: number;
  readonly killReplicas: boolean;
  readonly restartPostgres: boolean;
  /** How often an older state of the database is restored meanwhile. */
  readonly restores: number;
  say(line: string): void;
}

export interface Outcome {
  readonly problems: readonly string[];
  readonly transitions: number;
  /** All actions and counts, in a line. */
  readonly summary: string;
}

/** Every run has its own limits, so that rings, pages and queues are overrun. */
function limitsOf(random: Random): ReplicaLimits {
  return {
    ringCapacity: random.pick([20, 200, 20_000]),
    pageSize: random.pick([3, 10, 1_000]),
    queueLimit: random.pick([15, 100, 10_000]),
    maxAgeMs: random.pick([2_000, 1_800_000]),
  };
}

export async function run(options: RunOptions): Promise<Outcome> {
  const { seed, say } = options;
  const random = new Random(seed);
  const limits = limitsOf(random);
  const silent = random.chance(0.3);
  const slow = random.chance(0.6);
  const [notifications, commits] = [silent ? "dropped" : "sent", slow ? "slow" : "quick"];
  say(`seed ${seed}: ${JSON.stringify({ ...limits, notifications, commits })}`);
  await using stack = new AsyncDisposableStack();
  const cluster = stack.use(await Cluster.start());
  const replicas = Array.from({ length: options.replicas }, () => new Replica(cluster.url(), limits));
  stack.defer(async () => void (await Promise.all(replicas.map((replica) => replica.stop("SIGKILL")))));
  await migrated(cluster.url());
  if (silent) await dropNotifications(cluster);
  if (slow) await slowCommits(cluster);
  await Promise.all(replicas.map((replica) => replica.start()));
  const elsewhere = await openTransactionElsewhere(cluster);
  stack.defer(() => elsewhere.end());

  const bases = () => replicas.flatMap(({ base }) => base ?? []);
  const [writing, calm, over] = [new AbortController(), new AbortController(), new AbortController()];
  const users: string[] = [];
  let changes = 0;
  const onChange = () => {
    changes += 1;
  };
  const writers = Array.from({ length: options.writers }, (_, n) =>
    write({
      random: new Random(seed * 1_000 + n),
      signal: writing.signal,
      bases,
      onUser: (id) => users.push(id),
      onChange,
    }),
  );
  const lost: LostTail[] = [];
  const restores = new Restores(cluster, lost, silent);
  const histories: History[] = [];
  const watchers: Promise<void>[] = [];
  for (let n = 0; n < options.watchers; n += 1) {
    const own = new Random(seed * 1_000 + 500 + n);
    const conflates = own.chance(0.4);
    const history = new History(`watcher ${n}${conflates ? " (conflating)" : ""}`, randomFilter(own, users), conflates);
    histories.push(history);
    const isRestored = () => restores.begun;
    watchers.push(keepWatching({ random: own, history, calm: calm.signal, signal: over.signal, isRestored, bases }));
    await sleep(10);
  }
  const done = await disturb(options, random, cluster, replicas, restores, () => changes >= FEWEST_CHANGES);
  writing.abort();
  await Promise.all(writers);
  await Promise.all(replicas.map(async (replica) => replica.base ?? (await replica.start())));
  calm.abort();
  const problems: string[] = [];
  const newest = await untilStill(cluster.url());
  const deadline = performance.now() + CATCH_UP_MS;
  while (histories.some(({ revision = 0n }) => revision < newest) && performance.now() < deadline) await sleep(50);
  for (const { name, revision } of histories) {
    if (revision === undefined || revision < newest)
      problems.push(`${name} has come to ${revision}, the log to ${newest}`);
  }
  over.abort();
  await Promise.all(watchers);
  const log = await readLog(cluster.url());
  problems.push(...histories.flatMap((history) => history.judge(log, lost)), ...givenTwice(log, lost));
  const sum = (count: keyof History["counts"]) => histories.reduce((total, { counts }) => total + counts[count], 0);
  const summary = `${log.length} transitions, ${done.join(", ")}; ${sum("changes")} changes received, ${sum("merged")} merged into them, ${sum("snapshots")} snapshots, ${sum("resumes")} resumes${options.restores > 0 ? `, ${lost.reduce((total, { log, after }) => total + log.filter(({ revision }) => revision > after).length, 0)} transitions lost, ${sum("refusals")} watches rejected for it` : ""}`;
  say(`seed ${seed}: ${summary}: ${problems.length === 0 ? "all as the log has it" : `${problems.length} PROBLEMS`}`);
  return { problems, transitions: log.length, summary };
}

async function disturb(
  { disturbedMs, killReplicas, restartPostgres, restores: mostRestores }: RunOptions,
  random: Random,
  cluster: Cluster,
  replicas: readonly Replica[],
  restores: Restores,
  enough: () => boolean,
): Promise<string[]> {
  const counts = { kills: 0, drains: 0, "LISTEN cut": 0, "connections cut": 0, "PostgreSQL restarts": 0, restores: 0 };
  const end = performance.now() + disturbedMs;
  const restartAt = restartPostgres
    ? performance.now() + disturbedMs * random.between(0.3, 0.7)
    : Number.POSITIVE_INFINITY;
  const starting: Promise<void>[] = [];
  // Little happens in that time on a busy machine.
  const isDone = () => enough() && counts.restores >= mostRestores;
  while (performance.now() < end || (!isDone() && performance.now() < end + EXTRA_MS)) {
    await sleep(random.between(100, 700));
    if (performance.now() > restartAt && counts["PostgreSQL restarts"] === 0) {
      counts["PostgreSQL restarts"] += 1;
      await cluster.restart(random.pick(["SIGQUIT", "SIGINT"]));
      continue;
    }
    // Spread over the time that there is, and each with a while between the copy and its return.
    if (
      counts.restores < mostRestores &&
      performance.now() > end - disturbedMs * (1 - (counts.restores + 0.5) / mostRestores)
    ) {
      if (!restores.hasCopy) await restores.copy();
      else if (random.chance(0.4)) {
        counts.restores += 1;
        // Under running replicas, or while none is up: then no replica remembers anything.
        const stopped = random.chance(0.5) ? replicas.filter(({ base }) => base !== undefined) : [];
        await Promise.all(stopped.map((replica) => replica.stop("SIGKILL")));
        await restores.bringBack();
        await Promise.all(stopped.map((replica) => replica.start()));
      }
      continue;
    }
    const there = replicas.filter(({ base }) => base !== undefined);
    if (killReplicas && there.length > 1 && random.chance(0.25)) {
      const replica = random.pick(there);
      const signal = random.pick(["SIGKILL", "SIGKILL", "SIGTERM"] as const);
      counts[signal === "SIGKILL" ? "kills" : "drains"] += 1;
      await replica.stop(signal);
      const started = replica.start();
      // It is awaited at the end; until then its rejection has another handler.
      started.catch(() => undefined);
      starting.push(started);
    } else {
      const which = random.pick(["listen", "%"]);
      counts[which === "listen" ? "LISTEN cut" : "connections cut"] += 1;
      await cluster
        .query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
           AND application_name LIKE 'harborforge-agents ' || $1 AND ($1 <> '%' OR random() < 0.5)`,
          [which],
        )
        .catch(() => undefined);
    }
  }
  await Promise.all(starting);
  return Object.entries(counts).map(([what, count]) => `${count} ${what}`);
}

/** Restores older states of the database: copies of it that replace it, like a restored dump. */
class Restores {
  readonly #cluster: Cluster;
  readonly #lost: LostTail[];
  readonly #silent: boolean;
  #copied = false;
  /** Whether an older state has been restored, or is being restored. */
  begun = false;

  constructor(cluster: Cluster, lost: LostTail[], silent: boolean) {
    this.#cluster = cluster;
    this.#lost = lost;
    this.#silent = silent;
  }

  get hasCopy(): boolean {
    return this.#copied;
  }

  async copy(): Promise<void> {
    await copyDatabase(this.#cluster.url("postgres"), this.#cluster.name, "older_state");
    this.#copied = true;
  }

  async bringBack(): Promise<void> {
    this.begun = true;
    this.#copied = false;
    const kept = `lost_${this.#lost.length}`;
    const [older = { revision: "0" }] = await rowsOf<{ revision: string }>(
      this.#cluster.url("older_state"),
      "SELECT revision::text FROM revision_counter",
    );
    await swapIn(this.#cluster.url("postgres"), "older_state", this.#cluster.name, kept);
    if (this.#silent) await hideNotifications(this.#cluster);
    const lostUrl = this.#cluster.url(kept);
    const [newest = { revision: "0" }] = await rowsOf<{ revision: string }>(
      lostUrl,
      "SELECT revision::text FROM revision_counter",
    );
    this.#lost.push({ after: BigInt(older.revision), upTo: BigInt(newest.revision), log: await readLog(lostUrl) });
  }
}

/** Revisions of lost tails that were assigned again. */
function givenTwice(log: readonly LogRow[], lost: readonly LostTail[]): string[] {
  const problems: string[] = [];
  const given = new Set(log.map(({ revision }) => revision));
  for (const { after, log: tail } of lost) {
    const own = tail.map(({ revision }) => revision).filter((revision) => revision > after);
    const again = own.filter((revision) => given.has(revision));
    if (again.length > 0)
      problems.push(`${again.length} revisions of a lost history were given again, the first is ${again[0]}`);
    for (const revision of own) given.add(revision);
  }
  return problems;
}

/** The first replica migrates; no other one does here. */
async function migrated(url: string): Promise<void> {
  const { migrate } = await import("../../src/storage/migrations.ts");
  await migrate(url);
}

/** Every NOTIFY of the service is lost: a function of the same name comes first. */
async function dropNotifications(cluster: Cluster): Promise<void> {
  await cluster.query(`CREATE SCHEMA silent;
    CREATE FUNCTION silent.pg_notify(text, text) RETURNS void LANGUAGE sql AS '';`);
  await hideNotifications(cluster);
}

/** A setting of the database, which its copies do not have. */
async function hideNotifications(cluster: Cluster): Promise<void> {
  await cluster.query(`ALTER DATABASE ${cluster.name} SET search_path = silent, public, pg_catalog`);
}

/**
 * Sometimes a transaction with assigned revisions is slow to commit: if revisions did not follow the order of
 * commits, watchers would miss it.
 */
async function slowCommits(cluster: Cluster): Promise<void> {
  await cluster.query(`CREATE FUNCTION hesitate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('check.thought', true) IS DISTINCT FROM 'yes' THEN
        PERFORM set_config('check.thought', 'yes', true);
        IF random() < 0.2 THEN PERFORM pg_sleep(random() * 0.2); END IF;
      END IF;
      RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON agent_transitions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION hesitate()`);
}

/** A transaction that holds back `xmin` for the whole server, and must not delay a watcher. */
async function openTransactionElsewhere(cluster: Cluster): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: cluster.url("postgres") });
  // A restart of PostgreSQL ends it.
  client.on("error", () => undefined);
  await client.connect();
  await client.query("BEGIN");
  await client.query("CREATE TABLE somebody_writes (n integer)");
  return client;
}

/** The last revision, after a while without new ones: leases may still end. */
async function untilStill(url: string): Promise<bigint> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    let [newest, since] = [0n, performance.now()];
    while (performance.now() - since < 500) {
      const { rows } = await client.query<{ revision: string }>("SELECT revision::text FROM revision_counter");
      const revision = BigInt(rows[0]?.revision ?? 0);
      if (revision !== newest) [newest, since] = [revision, performance.now()];
      await sleep(50);
    }
    return newest;
  } finally {
    await client.end();
  }
}
