import { expect, test } from "vitest";
import { judgeSchema } from "../../src/storage/compatibility.ts";

const migrations = ["0001_a", "0002_b"];

test.each([
  ["0.2.0", "0.2.0", true],
  ["0.2.1", "0.2.0", true],
  ["0.10.0", "0.9.9", true],
  ["1.0.0", "0.99.0", true],
  ["0.3.0-next.1", "0.3.0", true],
  ["0.2.9", "0.3.0", false],
  ["0.2.0", "0.2.1", false],
  ["0.9.0", "0.10.0", false],
  ["undefined", "0.0.1", false],
  ["0.2", "0.0.1", false],
  ["0.2.0.1", "0.0.1", false],
])("version %s and a newer database that allows %s: usable is %s", (version, compatibleFrom, usable) => {
  const schema = { applied: [...migrations, "0003_c"], allows: { format: 1, compatibleFrom } };
  const judged = judgeSchema(schema, { version, migrations });
  if (usable) expect(judged).toEqual({ missing: [], newer: { unknown: ["0003_c"], compatibleFrom } });
  else expect(judged).toContain(`needs at least version ${compatibleFrom}. This is ${version}`);
});

test("a database without the table of migrations lacks all of them", () => {
  const judged = judgeSchema({ applied: [], allows: null }, { version: "0.2.0", migrations });
  expect(judged).toEqual({ missing: migrations, newer: null });
});
