import type { Logger } from "../../common/logging/logger.ts";
import { PeriodicTask } from "../../common/scheduling/periodic-task.ts";
import type { Database } from "../storage/database.ts";
import { isLost } from "../storage/failures.ts";
import { forgetConnections } from "../storage/incidents.ts";
import { type LogSize, measureLog } from "../storage/log-size.ts";
import { sweepRequestIds } from "../storage/request-answers.ts";
import { sweepTokens } from "../storage/token-directory.ts";
import { type RetentionLimits, TransitionRetention } from "../storage/transition-retention.ts";
import { sweepWakes } from "../storage/wake-queries.ts";

/** Request ids are kept for 24 h, and tokens for 90 days after their end. They may be removed up to an hour later. */
const SWEEP_MS = 3_600_000;
/** How often a replica looks for a partition of the log that can be removed. */
const RETENTION_MS = 60_000;
/** How often a replica measures the log, for its metrics. */
const MEASURE_MS = 60_000;
/** The transitions that are kept: seven days of them, ten million at most. */
export const DEFAULT_RETENTION: RetentionLimits = { ms: 7 * 24 * 3_600_000, transitions: 10_000_000 };

export interface PeriodicTasksOptions {
  readonly database: Database;
  /** The transitions that are kept. */
  readonly retention: RetentionLimits;
  /** How long a wake is kept after its end, in milliseconds. Default seven days. */
  readonly wakeRetentionMs?: number | undefined;
  readonly log: Logger;
}

/** Removes what the database need not keep any more, now and then. */
export class PeriodicTasks {
  readonly #retention: TransitionRetention;
  readonly #sweep: PeriodicTask;
  readonly #compaction: PeriodicTask;
  readonly #measurement: PeriodicTask;
  #logSize: LogSize | undefined;

  constructor({ database, retention, wakeRetentionMs = DEFAULT_RETENTION.ms, log }: PeriodicTasksOptions) {
    this.#retention = new TransitionRetention({ database, limits: retention, log });
    this.#sweep = new PeriodicTask({
      isLost,
      name: "sweep old request ids, tokens, wakes and addresses",
      everyMs: SWEEP_MS,
      log,
      run: async () => {
        await sweepRequestIds(database);
        await sweepTokens(database);
        await sweepWakes(database, wakeRetentionMs);
        await forgetConnections(database);
      },
    });
    this.#compaction = new PeriodicTask({
      isLost,
      name: "remove old transitions",
      everyMs: RETENTION_MS,
      log,
      run: () => this.#retention.run(),
    });
    this.#measurement = new PeriodicTask({
      isLost,
      name: "measure the log of transitions",
      everyMs: MEASURE_MS,
      log,
      run: async () => {
        this.#logSize = await measureLog(database);
      },
    });
  }

  /** The size of the log at most a minute ago. Undefined: not measured yet. */
  get logSize(): LogSize | undefined {
    return this.#logSize;
  }

  start(): void {
    this.#sweep.start();
    this.#compaction.start();
    this.#measurement.start();
  }

  /** Resolves when no task runs any more. */
  async close(): Promise<void> {
    await this.#sweep.close();
    this.#retention.close();
    await this.#compaction.close();
    await this.#measurement.close();
  }
}
