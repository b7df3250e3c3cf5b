import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SETTINGS, type Setting } from "../../src/config.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { type RunnableBlock, runnableBlocks, section } from "../support/fenced-blocks.ts";
import { checkout, openStage, type Serving, type Stage, says } from "../support/program.ts";

const readme = await readFile(join(checkout, "README.md"), "utf8");

/** The same with the addresses of a server that the test started. */
function addressed(code: string, { grpc, http }: Serving): string {
  return code.replaceAll("127.0.0.1:50051", new URL(grpc).host).replaceAll("127.0.0.1:8080", new URL(http).host);
}

async function run(stage: Stage, block: RunnableBlock, serving: Serving): Promise<void> {
  const code = addressed(block.code, serving);
  const [command, args] =
    block.language === "js" ? [process.execPath, ["--input-type=module", "--eval", code]] : ["sh", ["-e", "-c", code]];
  const running = stage.run(command, args, { group: true });
  if (block.ends) {
    const { code: exitCode, stdout, stderr } = await running.ended;
    expect({ exitCode, stderr }, block.code).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout, block.code).toContain(block.shows);
  } else {
    await says(running, block.shows);
    running.killGroup("SIGINT");
    await running.ended;
  }
}

test("README's commands work as they stand, one after the other", { timeout: 120_000 }, async () => {
  await using stage = await openStage();
  await using database = await createTestDatabase();
  const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
  const blocks = runnableBlocks(readme);
  expect(blocks.length).toBeGreaterThan(10);
  for (const block of blocks) await run(stage, block, serving);
});

test("README runs every block with an address, and no other shell than npm's scripts", () => {
  const fenced = [...readme.matchAll(/^```(?:sh|js)\n([\s\S]*?)^```$/gm)].map(([, code = ""]) => code);
  const runnable = new Set(runnableBlocks(readme).map(({ code }) => code));
  const others = fenced.filter((code) => !runnable.has(code));
  expect(others).toEqual(["npm ci && npm start\n", "npm ci && npm test\n", "npm run demo\n"]);
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
