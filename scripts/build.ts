// Builds the client library to dist/, from nothing: what a former build left would be packed, too.
import { rm } from "node:fs/promises";
import { runTool } from "./run-tool.ts";

await rm(new URL("../dist", import.meta.url), { recursive: true, force: true });
const { ok, output } = await runTool("tsc", ["--project", "tsconfig.build.json", "--pretty", "false"]);
if (!ok) {
  console.error(output.trimEnd());
  process.exitCode = 1;
}
