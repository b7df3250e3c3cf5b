// Runs the checks of continuous integration. `--static` omits the tests. Arguments name single parts.
import { parseArgs } from "node:util";
import { checkBreaking } from "./check-breaking.ts";
import { checkGenerated } from "./check-generated.ts";
import { checkImports } from "./check-imports.ts";
import { runTool, type ToolResult } from "./run-tool.ts";

const parts: ReadonlyMap<string, () => Promise<ToolResult>> = new Map([
  ["proto-format", () => runTool("buf", ["format", "--diff", "--exit-code"])],
  ["proto-lint", () => runTool("buf", ["lint"])],
  ["proto-breaking", checkBreaking],
  ["generated", checkGenerated],
  ["style", () => runTool("biome", ["ci", "--error-on-warnings", "--colors=off"])],
  ["types", () => runTool("tsc", ["--noEmit", "--pretty", "false"])],
  ["imports", checkImports],
  ["tests", () => runTool("vitest", ["run"])],
]);

const { values, positionals } = parseArgs({ allowPositionals: true, options: { static: { type: "boolean" } } });
const unknown = positionals.filter((name) => !parts.has(name));
if (unknown.length > 0) {
  console.error(`no such part: ${unknown.join(", ")}; there are ${[...parts.keys()].join(", ")}`);
  process.exit(2);
}

const chosen = [...parts].filter(([name]) =>
  positionals.length > 0 ? positionals.includes(name) : !(values.static === true && name === "tests"),
);

// One after the other: each of them uses all cores.
const failed: string[] = [];
for (const [name, run] of chosen) {
  const begin = performance.now();
  const { ok, output } = await run();
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(`${ok ? "ok    " : "FAILED"} ${name.padEnd(15)} ${seconds.padStart(6)} s`);
  if (!ok) failed.push(name);
  const shown = output.trimEnd();
  if (shown !== "" && (!ok || name === "tests" || name === "proto-breaking"))
    console.log(shown.replaceAll(/^/gm, "       "));
}
if (failed.length > 0) {
  console.error(`failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
