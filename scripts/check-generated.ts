import { readdir, readFile, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { root, runTool, type ToolResult } from "./run-tool.ts";
import { printValidateProto, VALIDATE_PROTO } from "./validate-proto.ts";

/**
 * Checks that `gen` equals the output of `buf generate`, and `validate.proto` the published package. Generates into a
 * temporary folder, so it depends neither on git nor on `gen`.
 */
export async function checkGenerated(): Promise<ToolResult> {
  if ((await readFile(VALIDATE_PROTO, "utf8").catch(() => "")) !== (await printValidateProto())) {
    return {
      ok: false,
      output: `${relative(root, VALIDATE_PROTO)} is not what its package publishes: npm run generate\n`,
    };
  }
  const folder = await temporaryFolder("generated");
  try {
    const generated = await runTool("buf", ["generate", "-o", folder]);
    if (!generated.ok) return generated;

    const fresh = await readTree(join(folder, "gen"));
    const kept = await readTree(join(root, "gen"));
    const stale = [...new Set([...fresh.keys(), ...kept.keys()])].filter((name) => fresh.get(name) !== kept.get(name));
    if (stale.length === 0) return { ok: true, output: `${fresh.size} files are up to date\n` };
    const lines = stale.sort().map((name) => `  gen/${name}\n`);
    return { ok: false, output: `not as generated now, "npm run generate" makes them anew:\n${lines.join("")}` };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function readTree(folder: string): Promise<Map<string, string>> {
  const tree = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    tree.set(relative(folder, path).replaceAll("\\", "/"), await readFile(path, "utf8"));
  }
  return tree;
}
