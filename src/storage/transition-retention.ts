import type pg from "pg";
import type { Logger } from "../../common/logging/logger.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";

const RAISE_FLOOR = namedQuery("raise-floor");
const COMPACTED_PARTITIONS = namedQuery("compacted-partitions");
const FORGET_INCIDENTS = namedQuery("forget-incidents");
const FORGET_REVISION_GAPS = namedQuery("forget-revision-gaps");

/** The key of pg_try_advisory_lock: one replica at a time. Migrations use another key. */
const RETENTION_LOCK = 7_294_116_530_218_403n;
/**
 * The time between raising the floor and removing partitions below it, in milliseconds. Reads that began before have
 * ended by then, because all statements and transactions of the service have shorter timeouts.
 */
const GRACE_MS = 30_000;
/**
 * Detaching waits for readers of the log without blocking others, in milliseconds. If it takes longer, the next run
 * continues.
 */
const STATEMENT_TIMEOUT_MS = 60_000;

export interface RetentionLimits {
  /** Younger transitions are kept, in milliseconds, unless there are more than `transitions`. */
  readonly ms: number;
  /** This many of the newest transitions are kept, unless they are older than `ms`. */
  readonly transitions: number;
}

export interface TransitionRetentionOptions {
  readonly database: Pick<Database, "newClient">;
  readonly limits: RetentionLimits;
  readonly log: Pick<Logger, "info">;
  /** In milliseconds; default 30 s. */
  readonly graceMs?: number;
}

interface PartitionRow {
  readonly name: string;
  readonly attached: boolean;
  readonly pending: boolean;
}

/**
 * Limits the size of the log of transitions by removing whole partitions. No row is deleted, nothing is vacuumed, and
 * readers and writers do not wait. Only a whole partition is removed, so the log keeps somewhat more than configured.
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
    // The current statement fails with the connection, and reports the error.
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

  /** Aborts the current run. The server finishes or rolls back its statement by itself. */
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
      log.info(
        { event: "retention.floor_raised", oldest: oldest.toString() },
        "raised the floor of the transition log",
      );
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
      log.info(
        { event: "retention.partition_removed", partition: partition.name },
        "removed a partition of the transition log",
      );
    }
    await client.query({ ...FORGET_REVISION_GAPS });
    await client.query({ ...FORGET_INCIDENTS });
  }
}

/** The names consist of `agent_transitions_` and digits, so they need no quoting. */
async function remove(client: pg.Client, { name, attached, pending }: PartitionRow): Promise<void> {
  if (attached) {
    // CONCURRENTLY and FINALIZE: dropping an attached partition would lock the whole log.
    await client.query(
      `ALTER TABLE agent_transitions DETACH PARTITION ${name} ${pending ? "FINALIZE" : "CONCURRENTLY"}`,
    );
  }
  await client.query(`DROP TABLE ${name}`);
}
