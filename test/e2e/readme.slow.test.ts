import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { settingsTable } from "../../scripts/settings-table.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { runnableBlocks, section } from "../support/fenced-blocks.ts";
import { checkout, openStage } from "../support/program.ts";
import { runBlock } from "../support/run-block.ts";

const readme = await readFile(join(checkout, "README.md"), "utf8");
const settings = await readFile(join(checkout, "docs/settings.md"), "utf8");

test("README's commands run unchanged, one after the other", { timeout: 120_000 }, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  await using beside = new AsyncDisposableStack();
  const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
  const blocks = runnableBlocks(readme);
  expect(blocks).toHaveLength(3);
  for (const block of blocks) await runBlock(stage, block, serving, { beside });
});

test("README runs every block with an address, and no shell other than npm's scripts", () => {
  const fenced = [...readme.matchAll(/^```(?:sh|js|ts)\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code);
  const runnable = new Set(runnableBlocks(readme).map(({ code }) => code));
  const others = fenced.filter((code) => !runnable.has(code));
  expect(others).toEqual(["npm ci && npm start\n", "npm ci && npm test\n"]);
});

test.each([
  ["agent", "createHeartbeatClient", 10],
  ["calendar", "updateAgentStatus", 10],
])("README's quick start for an %s takes few lines", (_who, calls, most) => {
  const programs = runnableBlocks(readme).filter(({ code }) => code.includes(calls));
  expect(programs).toHaveLength(1);
  const lines = programs.flatMap(({ code }) => code.trim().split("\n").slice(1, -1));
  expect(lines.length).toBeLessThanOrEqual(most);
});

test("docs/settings.md equals the settings of the program", () => {
  expect(section(settings, "settings").trim()).toBe(settingsTable());
});
