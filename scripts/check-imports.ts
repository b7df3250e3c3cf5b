import { existsSync } from "node:fs";
import { join } from "node:path";
import { root, runTool, type ToolResult } from "./run-tool.ts";

const folders = ["common", "packages", "src", "gen", "migrations", "test", "bench", "scripts"];

/** Checks the direction of imports by `.dependency-cruiser.mjs`. */
export async function checkImports(): Promise<ToolResult> {
  const present = folders.filter((folder) => existsSync(join(root, folder)));
  const result = await runTool("depcruise", [...present, "--output-type", "err-long"]);
  if (!result.ok) return result;

  // Without a usable TypeScript, dependency-cruiser skips all .ts files and reports no errors.
  const modules = Number(/(\d+) modules/.exec(result.output)?.[1] ?? 0);
  if (modules < present.length)
    return { ok: false, output: `dependency-cruiser read no TypeScript:\n${result.output}` };
  return result;
}
