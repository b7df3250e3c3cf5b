// Builds the client library into dist/, or into the given folder. Deletes the folder first, because files of an earlier
// build would be packed.
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
