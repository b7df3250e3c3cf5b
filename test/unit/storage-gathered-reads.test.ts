import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { BatchedReads } from "../../src/storage/batched-reads.ts";

interface Statement {
  readonly keys: readonly string[];
  answer(rows: readonly string[]): void;
  fail(error: Error): void;
}

function setUp() {
  const statements: Statement[] = [];
  const reads = new BatchedReads<string, string>({
    read: (keys) =>
      new Promise((resolve, reject) => {
        statements.push({ keys, answer: resolve, fail: reject });
      }),
    keyOf: (row) => row.slice(0, 1),
  });
  const statement = (place: number): Statement => {
    const found = statements[place];
    if (found === undefined) throw new Error(`there are only ${statements.length} statements`);
    return found;
  };
  return { reads, statements, statement };
}

describe("concurrent reads", () => {
  it("share a statement, which reads each key once", async () => {
    const { reads, statements, statement } = setUp();
    const rows = Promise.all([reads.get("a"), reads.get("b"), reads.get("a"), reads.get("c")]);
    await turn();
    expect(statements.map(({ keys }) => keys)).toEqual([["a", "b", "c"]]);
    statement(0).answer(["b2", "a1"]);
    await expect(rows).resolves.toEqual(["a1", "b2", "a1", undefined]);
  });

  it("do not join a statement that is sent, so that each sees what was committed before it began", async () => {
    const { reads, statement } = setUp();
    const before = reads.get("a");
    await turn();
    const after = reads.get("a");
    await turn();
    statement(0).answer(["a: old"]);
    statement(1).answer(["a: new"]);
    await expect(before).resolves.toBe("a: old");
    await expect(after).resolves.toBe("a: new");
  });

  it("wait while two statements are under way, and continue when either ends", async () => {
    const { reads, statements, statement } = setUp();
    const rows: Promise<string | undefined>[] = [];
    for (const key of ["a", "b", "c", "d"]) {
      rows.push(reads.get(key));
      await turn();
    }
    expect(statements.map(({ keys }) => keys)).toEqual([["a"], ["b"]]);
    statement(1).answer(["b"]);
    await rows[1];
    await turn();
    expect(statements.map(({ keys }) => keys)).toEqual([["a"], ["b"], ["c", "d"]]);
    statement(0).answer(["a"]);
    statement(2).answer(["c", "d"]);
    await expect(Promise.all(rows)).resolves.toEqual(["a", "b", "c", "d"]);
  });

  it("fail with their statement, and do not affect the next one", async () => {
    const { reads, statement } = setUp();
    const failed = Promise.allSettled([reads.get("a"), reads.get("b")]);
    await turn();
    const next = reads.get("a");
    const reason = new Error("the connection is lost");
    statement(0).fail(reason);
    await expect(failed).resolves.toEqual([
      { status: "rejected", reason },
      { status: "rejected", reason },
    ]);
    await turn();
    statement(1).answer(["a"]);
    await expect(next).resolves.toBe("a");
  });

  it("use several statements when they are very many", async () => {
    const { statements, reads } = setUp();
    const keys = Array.from({ length: 1_200 }, (_, n) => String(n));
    const rows = Promise.all(keys.map((key) => reads.get(key)));
    for (let answered = 0; answered < 3; answered += 1) {
      await expect.poll(() => statements.length).toBeGreaterThan(answered);
      statements[answered]?.answer([]);
    }
    await rows;
    expect(statements.flatMap((one) => one.keys).toSorted()).toEqual(keys.toSorted());
    expect(Math.max(...statements.map((one) => one.keys.length))).toBeLessThanOrEqual(500);
  });
});
