import { setTimeout as sleep } from "node:timers/promises";
import type { Knex } from "knex";
import { Backoff } from "./backoff.ts";
import { databaseUnavailable, failureKind, isPermanent, refusalFor } from "./failures.ts";

/** A read that failed later than this is not tried again: its caller has waited long enough. */
const READ_PATIENCE_MS = 3_000;
const MOST_READS = 3;
/** How long a caller waits at most for a change while the database is away or busy, in milliseconds. */
export const CHANGE_PATIENCE_MS = 6_000;
const FIRST_PAUSE_MS = 25;
const LONGEST_PAUSE_MS = 500;

/**
 * Reads, again where the connection was lost or the database busy.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE` when that did not help; what `work` throws otherwise
 */
export async function reading<Result>(work: () => Promise<Result>): Promise<Result> {
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
export async function readingSnapshot<Result>(
  knex: Knex,
  work: (snapshot: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  return await reading(() => knex.transaction(work, { isolationLevel: "repeatable read", readOnly: true }));
}

/**
 * Changes something in one transaction, again where it certainly took no effect, or where `repeatable` says that a
 * repetition finds its first answer.
 *
 * @throws Refusal `DATABASE_UNAVAILABLE` when that did not help, which says whether it may have taken effect; what
 * `work` throws otherwise
 */
export async function changing<Result>(
  knex: Knex,
  repeatable: boolean,
  work: (transaction: Knex.Transaction) => Promise<Result>,
): Promise<Result> {
  const deadline = performance.now() + CHANGE_PATIENCE_MS;
  const pauses = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  let inDoubt = false;
  for (;;) {
    let committing = false;
    try {
      return await knex.transaction(async (transaction) => {
        const result = await work(transaction);
        committing = true;
        return result;
      });
    } catch (error) {
      const kind = failureKind(error);
      if (isPermanent(kind)) throw refusalFor(error);
      inDoubt ||= committing && kind === "lost";
      if ((inDoubt && !repeatable) || performance.now() > deadline) throw databaseUnavailable(error, inDoubt);
      await sleep(pauses.next());
    }
  }
}
