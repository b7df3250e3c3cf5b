import { readdir, readFile, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { CONTRACT_PAGE, printContractPage } from "./contract-page.ts";
import { FAST_PATH_FILE, FAST_PATH_MESSAGES, fastPathSource } from "./fast-path.ts";
import { PROVIDER_ERRORS_FILE, printProviderErrors } from "./provider-errors-table.ts";
import { root, runTool, type ToolResult } from "./run-tool.ts";
import { printValidateProto, VALIDATE_PROTO } from "./validate-proto.ts";

/** As in the script `generate` of package.json. */
const TEMPLATES = ["buf.gen.yaml", "buf.gen.client.yaml", "buf.gen.watch.yaml"];

/**
 * Compares the generated files with what `npm run generate` makes now: `gen`, the page of the contract, the fast path, the tables
 * of providers' errors, and the `validate.proto` that its package publishes. Generates into a temporary folder, so `gen` is not changed. The fast path is
 * generated from the descriptors in `gen`, which are compared as well.
 */
export async function checkGenerated(): Promise<ToolResult> {
  const texts: readonly [string, () => Promise<string>][] = [
    [VALIDATE_PROTO, printValidateProto],
    [CONTRACT_PAGE, printContractPage],
    [join(root, FAST_PATH_FILE), () => Promise.resolve(fastPathSource(FAST_PATH_MESSAGES))],
    [PROVIDER_ERRORS_FILE, () => Promise.resolve(printProviderErrors())],
  ];
  for (const [file, print] of texts) {
    if ((await readFile(file, "utf8").catch(() => "")) === (await print())) continue;
    return { ok: false, output: `${relative(root, file)} is not as generated now. Run "npm run generate".\n` };
  }
  const folder = await temporaryFolder("generated");
  try {
    // One after the other: the first one removes what is in the folder.
    for (const template of TEMPLATES) {
      const generated = await runTool("buf", ["generate", "--template", template, "-o", folder]);
      if (!generated.ok) return generated;
    }

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
