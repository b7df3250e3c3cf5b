import { existsSync } from "node:fs";
import { join } from "node:path";
import { root, runTool, type ToolResult } from "./run-tool.ts";

const folders = ["packages", "src", "gen", "migrations", "test", "bench", "scripts"];

/** Says whether imports point one way, as `.dependency-cruiser.mjs` has it. */
export async function checkImports(): Promise<ToolResult> {
  const present = folders.filter((folder) => existsSync(join(root, folder)));
  const result = await runTool("depcruise", [...present, "--output-type", "err-long"]);
  if (!result.ok) return result;

  // Without a TypeScript that it can use, dependency-cruiser skips every .ts file and finds nothing wrong.
  const modules = Number(/(\d+) modules/.exec(result.output)?.[1] ?? 0);
  if (modules < present.length)
    return { ok: false, output: `dependency-cruiser read no TypeScript:\n${result.output}` };
  return result;
}
