import type pg from "pg";
import { expect, test } from "vitest";
import { failureKind } from "../../src/storage/failures.ts";
import { TransitionLog } from "../../src/storage/transition-log.ts";

const NOTHING = { revision: null, oldest: 0n, history_break: null, gaps: null };

/** Answers one statement after the other with these; the last one repeatedly. */
function poolThatAnswers(...answers: object[]): { pool: pg.Pool; asked: () => number } {
  let asked = 0;
  const query = () => Promise.resolve({ rows: [answers[Math.min(asked++, answers.length - 1)]] });
  return { pool: { query } as unknown as pg.Pool, asked: () => asked };
}

test("reads a page without its last revision again, until it has the gap or the transition", async () => {
  const lacking = { ...NOTHING, newest: 11n };
  const jumped = { ...NOTHING, newest: 100n, gaps: [["10", "100"]] };
  const { pool, asked } = poolThatAnswers(lacking, lacking, jumped);
  expect(await new TransitionLog(pool).read(10n, 100)).toMatchObject({ newest: 100n, gaps: [{ from: 10n, to: 100n }] });
  expect(asked()).toBe(3);
});

test.each([
  ["nothing new", 11n, 0n],
  ["a revision in the future", 12n, 0n],
  ["a revision that is no longer kept", 9n, 10n],
])("%s is one statement", async (_, after, oldest) => {
  const { pool, asked } = poolThatAnswers({ ...NOTHING, oldest, newest: 11n });
  expect(await new TransitionLog(pool).read(after, 100)).toMatchObject({ newest: 11n, transitions: [] });
  expect(asked()).toBe(1);
});

test("a log that stays incomplete is an error, and its reader may try again later", async () => {
  const { pool } = poolThatAnswers({ ...NOTHING, newest: 11n });
  const error = await new TransitionLog(pool).read(10n, 100).catch((failure: unknown) => failure);
  expect(failureKind(error)).toBe("contention");
});
