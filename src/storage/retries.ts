import { setTimeout as sleep } from "node:timers/promises";
import type { Knex } from "knex";
import { type Micros, toRfc3339 } from "../contract/time.ts";
import type { Call } from "../domain/directory.ts";
import { Backoff } from "../scheduling/backoff.ts";
import type { DatabaseClock } from "./clock.ts";
import type { Database } from "./database.ts";
import { databaseUnavailable, failureKind, isLate, isPermanent, refusalFor } from "./failures.ts";

/** A read that failed later than this is not tried again: its caller has waited long enough. */
const READ_PATIENCE_MS = 3_000;
const MOST_READS = 3;
/** How long a caller waits at most for a change while the database is away or busy, in milliseconds. */
const CHANGE_PATIENCE_MS = 6_000;
const FIRST_PAUSE_MS = 25;
const LONGEST_PAUSE_MS = 500;

/**
 * Reads, again where the connection was lost or the database busy.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE` when that did not help; what `work` throws otherwise
 */
export async function retryRead<Result>(work: () => Promise<Result>): Promise<Result> {
  const pauses = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  const patientUntil = performance.now() + READ_PATIENCE_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (isPermanent(failureKind(error))) throw refusalFor(error);
      if (attempt === MOST_READS || performance.now() > patientUntil) throw databaseUnavailable(error);
      await sleep(pauses.next());
    }
  }
}

/** One moment of the database for all that `work` reads: pages and counts fit the revision that they are told with. */
export async function readSnapshot<Result>(
  knex: Knex,
  work: (snapshot: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  return await retryRead(() => knex.transaction(work, { isolationLevel: "repeatable read", readOnly: true }));
}

/** For how long a change that a call asks for is wanted: until the call ends, and no longer than a change may wait. */
export function boundsOf(call: Call | undefined): { readonly deadline: number; readonly call: Pick<Call, "over"> } {
  const patience = performance.now() + CHANGE_PATIENCE_MS;
  return call === undefined
    ? { deadline: patience, call: NO_CALL }
    : { deadline: Math.min(patience, call.deadline), call };
}

const NO_CALL: Pick<Call, "over"> = { over: false };

/**
 * Changes something in one transaction, again where it certainly took no effect, or where `repeatable` says that a
 * repetition finds its first answer. It is not begun, and not committed, once the call has ended.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE` when that did not help, which says whether it may have taken effect; what
 * `work` throws otherwise
 */
export async function retryChange<Result>(
  { knex, clock, changes }: Pick<Database, "knex" | "clock" | "changes">,
  asked: Call | undefined,
  repeatable: boolean,
  work: (transaction: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  const { deadline, call } = boundsOf(asked);
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
        // The database itself ends a transaction whose COMMIT does not arrive before the deadline (see migration 0007).
        await transaction.raw("SELECT commit_before(?::timestamptz)", [toRfc3339(clock.atLeast(deadline))]);
        committing = true;
        return result;
      });
    } catch (error) {
      // If the caller still waits, the deadline was measured by an old reading of the clock, which may lag behind.
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
