import { setTimeout as sleep } from "node:timers/promises";
import type { Knex } from "knex";
import { type Micros, toRfc3339 } from "../../common/contract/time.ts";
import { Backoff } from "../../common/scheduling/backoff.ts";
import type { Call } from "../domain/directories.ts";
import type { DatabaseClock } from "./clock.ts";
import type { Database } from "./database.ts";
import { databaseUnavailable, failureKind, isLate, isPermanent, refusalFor } from "./failures.ts";

/** After this time a failed read is not retried, in milliseconds: the caller has waited long enough. */
const READ_RETRY_MS = 3_000;
const MAX_READS = 3;
/** How long a change may wait while the database is unavailable or busy, in milliseconds. */
const CHANGE_TIMEOUT_MS = 6_000;
const FIRST_PAUSE_MS = 25;
const LONGEST_PAUSE_MS = 500;

/**
 * Runs a read, and retries it after a lost connection or a busy database.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE` if retries did not help; other errors of `work` unchanged
 */
export async function retryRead<Result>(work: () => Promise<Result>): Promise<Result> {
  const pauses = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  const patientUntil = performance.now() + READ_RETRY_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (isPermanent(failureKind(error))) throw refusalFor(error);
      if (attempt === MAX_READS || performance.now() > patientUntil) throw databaseUnavailable(error);
      await sleep(pauses.next());
    }
  }
}

/** Runs `work` in one snapshot of the database, so that pages and counts match their revision. */
export async function readSnapshot<Result>(
  knex: Knex,
  work: (snapshot: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  return await retryRead(() => knex.transaction(work, { isolationLevel: "repeatable read", readOnly: true }));
}

/**
 * The limits of a change: the end of its call, and at most `CHANGE_TIMEOUT_MS`. The deadline is of `performance.now()`.
 */
export function boundsOf(call: Call | undefined): { readonly deadline: number; readonly call: Pick<Call, "over"> } {
  const latest = performance.now() + CHANGE_TIMEOUT_MS;
  return call === undefined ? { deadline: latest, call: NO_CALL } : { deadline: Math.min(latest, call.deadline), call };
}

const NO_CALL: Pick<Call, "over"> = { over: false };

/**
 * Runs a change in one transaction. It retries if the attempt certainly took no effect, or if `repeatable`. It neither
 * starts nor commits after the call has ended.
 *
 * @param repeatable a repetition finds the stored response of a first attempt
 * @throws Refusal `DATABASE_UNAVAILABLE`, with whether the change may have taken effect; other errors of `work`
 * unchanged
 */
export async function retryChange<Result>(
  { knex, clock, changes }: Pick<Database, "knex" | "clock" | "changes">,
  caller: Call | undefined,
  repeatable: boolean,
  work: (transaction: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  const { deadline, call } = boundsOf(caller);
  const pauses = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  let inDoubt = false;
  let wasLate = false;
  for (;;) {
    let committing = false;
    const isWanted = (): boolean => !call.over && performance.now() < deadline;
    try {
      using place = await changes.enter(deadline);
      if (place === undefined || !isWanted()) throw databaseUnavailable(undefined, inDoubt);
      return await knex.transaction(async (transaction) => {
        if (wasLate || !clock.isRead) await readClock(transaction, clock);
        const result = await work(transaction);
        if (!isWanted()) throw databaseUnavailable(undefined, inDoubt);
        // The database ends the transaction itself if the COMMIT arrives after the deadline (migration 0007).
        await transaction.raw("SELECT commit_before(?::timestamptz)", [toRfc3339(clock.atLeast(deadline))]);
        committing = true;
        return result;
      });
    } catch (error) {
      // The caller still waits, so an old clock reading made the deadline too early: read the clock again.
      wasLate = isLate(error);
      if (wasLate && isWanted()) continue;
      if (wasLate) throw databaseUnavailable(error, inDoubt);
      const kind = failureKind(error);
      if (isPermanent(kind)) throw refusalFor(error);
      inDoubt ||= committing && kind === "lost";
      if ((inDoubt && !repeatable) || !isWanted()) throw databaseUnavailable(error, inDoubt);
      await sleep(pauses.next());
    }
  }
}

async function readClock(transaction: Knex.Transaction, clock: DatabaseClock): Promise<void> {
  const sentAt = performance.now();
  const { rows } = await transaction.raw<{ rows: { read_at: Micros }[] }>("SELECT clock_timestamp() AS read_at");
  const [row] = rows;
  if (row !== undefined) clock.observe(row.read_at, sentAt);
}
