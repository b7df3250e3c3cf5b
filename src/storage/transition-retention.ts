import type pg from "pg";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const RAISE_FLOOR = namedQuery("raise-floor");
const COMPACTED_PARTITIONS = namedQuery("compacted-partitions");
const FORGET_REVISION_GAPS = namedQuery("forget-revision-gaps");

/** Of pg_try_advisory_lock: one replica at a time. Not the number of the migrations. */
const RETENTION_LOCK = 7_294_116_530_218_403n;
/**
 * Between raising the floor and removing what lies before it: whoever began to read before the floor was raised has ended
 * by then, since every statement and every transaction of the service is bounded to less.
 */
const GRACE_MS = 30_000;
/** Detaching waits for whoever reads the log, holding nothing up; when it takes longer, the next run goes on. */
const STATEMENT_TIMEOUT_MS = 60_000;

export interface RetentionLimits {
  /** Transitions that are younger are kept, in milliseconds; unless there are more than `transitions`. */
  readonly ms: number;
  /** So many of the newest are kept; unless they are older than `ms`. */
  readonly transitions: number;
}

export interface TransitionRetentionOptions {
  readonly database: Pick<Database, "newClient">;
  readonly limits: RetentionLimits;
  readonly log: { info(facts: object, message: string): void };
  /** 30 s unless told. */
  readonly graceMs?: number;
}

interface PartitionRow {
  readonly name: string;
  readonly attached: boolean;
  readonly pending: boolean;
}

/**
 * Keeps the log of transitions bounded by removing whole partitions of it: no row is deleted, nothing is vacuumed, and
 * whoever writes or reads the log does not wait. What goes is what both has to go and fills a partition, so somewhat more
 * is kept than was asked for.
 */
export class TransitionRetention {
  readonly #options: TransitionRetentionOptions;
  #closed = false;
  #interrupt: () => void = () => undefined;

  constructor(options: TransitionRetentionOptions) {
    this.#options = options;
  }

  /** Removes what is no longer kept. Does nothing while another replica is at it. Safe to break off at any moment. */
  async run(): Promise<void> {
    if (this.#closed) return;
    const client = this.#options.database.newClient("retention", {
      query_timeout: STATEMENT_TIMEOUT_MS + 5_000,
    });
    // The statement under way fails with the connection, which is what tells.
    client.on("error", () => undefined);
    const closing = new Promise<void>((resolve) => {
      this.#interrupt = resolve;
    });
    const ended = closing.then(() => client.end());
    try {
      await client.connect();
      await client.query(`SET statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
      const { rows } = await client.query<{ taken: boolean }>("SELECT pg_try_advisory_lock($1) AS taken", [
        RETENTION_LOCK,
      ]);
      if (rows[0]?.taken === true) await this.#compact(client, closing);
    } catch (error) {
      if (!this.#closed) throw error;
    } finally {
      this.#interrupt();
      await ended.catch(() => undefined);
    }
  }

  /** Breaks off a run that is under way; the server finishes or undoes its statement by itself. */
  close(): void {
    this.#closed = true;
    this.#interrupt();
  }

  async #compact(client: pg.Client, closing: Promise<void>): Promise<void> {
    const { limits, log, graceMs = GRACE_MS } = this.#options;
    const { rows } = await client.query<{ oldest: bigint }>({
      ...RAISE_FLOOR,
      values: [limits.ms, limits.transitions],
    });
    for (const { oldest } of rows)
      log.info({ oldest: oldest.toString() }, "transitions up to this revision are given up");
    const { rows: partitions } = await client.query<PartitionRow>({ ...COMPACTED_PARTITIONS });
    if (partitions.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const grace = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([grace, closing]);
    clearTimeout(timer);
    for (const partition of partitions) {
      if (this.#closed) return;
      await remove(client, partition);
      log.info({ partition: partition.name }, "removed a partition of the log of transitions");
    }
    await client.query({ ...FORGET_REVISION_GAPS });
  }
}

/** Names are ours (`agent_transitions_` and digits), so they need no quoting. */
async function remove(client: pg.Client, { name, attached, pending }: PartitionRow): Promise<void> {
  if (attached) {
    // CONCURRENTLY and FINALIZE: dropping it as it is would lock the whole log.
    await client.query(
      `ALTER TABLE agent_transitions DETACH PARTITION ${name} ${pending ? "FINALIZE" : "CONCURRENTLY"}`,
    );
  }
  await client.query(`DROP TABLE ${name}`);
}
