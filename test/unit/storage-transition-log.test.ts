import type pg from "pg";
import { expect, test } from "vitest";
import { TransitionLog } from "../../src/storage/transition-log.ts";

const NOTHING = { revision: null, oldest: 0n, of_lost_history: false };

/** Answers one statement after the other with these; the last one again and again. */
function poolThatAnswers(...answers: object[]): { pool: pg.Pool; asked: () => number } {
  let asked = 0;
  const query = () => Promise.resolve({ rows: [answers[Math.min(asked++, answers.length - 1)]] });
  return { pool: { query } as unknown as pg.Pool, asked: () => asked };
}

test("a page with a jump ahead of it is read again: the statement that first saw it may not have known its partitions", async () => {
  const jump = { jump_from: 10n, jump_to: 100n };
  const { pool, asked } = poolThatAnswers({ ...NOTHING, ...jump, newest: 101n }, { ...NOTHING, ...jump, newest: 102n });
  expect(await new TransitionLog(pool).read(10n, 100)).toMatchObject({ newest: 102n, jump: { from: 10n, to: 100n } });
  expect(asked()).toBe(2);
});

test("without a jump a page is one statement", async () => {
  const { pool, asked } = poolThatAnswers({ ...NOTHING, jump_from: null, jump_to: null, newest: 11n });
  expect(await new TransitionLog(pool).read(10n, 100)).toMatchObject({ newest: 11n, jump: undefined });
  expect(asked()).toBe(1);
});
