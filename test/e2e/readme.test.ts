import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SETTINGS, type Setting } from "../../src/config/config.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { runnableBlocks, section } from "../support/fenced-blocks.ts";
import { openClientProject } from "../support/packed-client.ts";
import { checkout, openStage } from "../support/program.ts";
import { runBlock } from "../support/run-block.ts";

const readme = await readFile(join(checkout, "README.md"), "utf8");

test("README's commands work as they stand, one after the other", { timeout: 120_000 }, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  await using project = await openClientProject();
  const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
  const blocks = runnableBlocks(readme);
  expect(blocks.length).toBeGreaterThan(10);
  for (const block of blocks) await runBlock(stage, block, serving, project.path);
});

test("README runs every block with an address, and no other shell than npm's scripts", () => {
  const fenced = [...readme.matchAll(/^```(?:sh|js|ts)\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code);
  const runnable = new Set(runnableBlocks(readme).map(({ code }) => code));
  const others = fenced.filter((code) => !runnable.has(code));
  expect(others).toEqual(["npm ci && npm start\n", "npm ci && npm test\n", "npm run demo\n"]);
});

test("README's quick start for an agent takes at most ten lines", () => {
  const [quickStart, ...others] = runnableBlocks(readme).filter(({ language }) => language === "ts");
  expect(others).toEqual([]);
  expect(quickStart?.code).toContain("createHeartbeatClient");
  expect(quickStart?.code.trim().split("\n").length).toBeLessThanOrEqual(10);
});

test("README's table has every setting as the program has it", () => {
  const row = ({ env, flag, description, allowed, defaultText }: Setting<unknown>): string =>
    `| \`${env}\`<br>\`--${flag}\` | ${defaultText} | ${description}: ${allowed} |`;
  const table = [
    "| setting | default | meaning and range |",
    "| --- | --- | --- |",
    ...Object.values(SETTINGS).map(row),
  ];
  expect(section(readme, "settings").trim()).toBe(table.join("\n"));
});
