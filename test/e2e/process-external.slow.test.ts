import { expect, test } from "vitest";
import { createEmptyDatabase } from "../support/cluster.ts";
import { openStage } from "../support/program.ts";

test("migrate --new-history advances revisions, rejects an unmigrated database, and may be repeated", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url };
  const declare = () => stage.program(["migrate", "--new-history"], { env }).ended;
  const refused = await declare();
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toMatch(
    /not migrated: the schema of this service is missing\. Run "harborforge-agents migrate" first\.\n$/,
  );
  await stage.program(["migrate"], { env }).ended;
  const revisions: bigint[] = [];
  for (let n = 0; n < 2; n += 1) {
    const { code, stdout, stderr } = await declare();
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const [, from = "", to = ""] =
      / begins a new history: the last revision was (\d+), new revisions are larger than (\d+)\. /.exec(stdout) ?? [];
    revisions.push(BigInt(from), BigInt(to));
  }
  expect(revisions[2]).toBe(revisions[1]);
  expect(new Set(revisions).size).toBe(3);
  expect(revisions).toEqual(revisions.toSorted((one, other) => (one < other ? -1 : 1)));
});

test("migrate brings a database to the newest schema, also when several run at once", async () => {
  await using stage = await openStage();
  await using database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url };
  const endings = await Promise.all([1, 2, 3].map(() => stage.program(["migrate"], { env }).ended));
  for (const ending of endings) expect(ending).toMatchObject({ code: 0, stderr: "" });
  const said = endings.map(({ stdout }) => stdout).sort();
  expect(said.filter((line) => /was migrated: 0001_tables, /.test(line))).toHaveLength(1);
  expect(said.filter((line) => /is at the newest schema already\.\n$/.test(line))).toHaveLength(2);
  const serving = await stage.serve({ env });
  expect(serving.stderr).not.toMatch(/database\.migrated/);
});
