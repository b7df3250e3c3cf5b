// Builds the client library to dist/, or to the folder that is named, from nothing: what a former build left would be
// packed, too.
import { rm } from "node:fs/promises";
import { resolve } from "node:path";
import { root, runTool } from "./run-tool.ts";

const folder = resolve(root, process.argv[2] ?? "dist");
await rm(folder, { recursive: true, force: true });
const { ok, output } = await runTool("tsc", [
  "--project",
  "tsconfig.build.json",
  "--outDir",
  folder,
  "--pretty",
  "false",
]);
if (!ok) {
  console.error(output.trimEnd());
  process.exitCode = 1;
}
