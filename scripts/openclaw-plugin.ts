// The package of the OpenClaw plugin: npm run pack:openclaw -- [FOLDER]. Default: dist/. Prints the tarball. `npm run pack` packs it,
// too. It is bundled, since OpenClaw would otherwise install 52 MB of dependencies into the gateway.
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { build } from "esbuild";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { root, runTool } from "./run-tool.ts";

const source = join(root, "packages/openclaw");

/** The manifest of the plugin as npm gets it: without dependencies, which are part of the bundle. */
interface PluginManifest {
  readonly name: string;
  readonly version: string;
  readonly dependencies?: object;
  readonly exports?: object;
  readonly [field: string]: unknown;
}

/** Writes the package to a folder, ready for `npm pack`. @returns its version */
export async function stagePlugin(path: string): Promise<string> {
  const {
    dependencies: _bundled,
    exports: _sources,
    ...manifest
  }: PluginManifest = JSON.parse(await readFile(join(source, "package.json"), "utf8"));
  const { version } = manifest;
  await build({
    entryPoints: { index: join(source, "src/index.ts"), "heartbeat-worker": join(source, "src/heartbeat-worker.ts") },
    outdir: join(path, "dist"),
    bundle: true,
    // Both files share most of their code.
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node22",
    external: ["openclaw/*"],
    minify: true,
    keepNames: true,
    legalComments: "none",
    define: { PLUGIN_VERSION: JSON.stringify(version) },
    // Bundled CommonJS modules call it.
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  const packed = {
    ...manifest,
    engines: { node: ">=22" },
    exports: { ".": "./dist/index.js", "./package.json": "./package.json" },
    files: ["dist", "openclaw.plugin.json"],
  };
  await writeFile(join(path, "package.json"), `${JSON.stringify(packed, null, 2)}\n`);
  for (const name of ["openclaw.plugin.json", "README.md"]) await copyFile(join(source, name), join(path, name));
  for (const name of ["LICENSE", "CHANGELOG.md"]) await copyFile(join(root, name), join(path, name));
  return version;
}

/** Packs the plugin alone. @returns the tarball */
export async function packPlugin(folder: string): Promise<string> {
  const work = await temporaryFolder("pack-openclaw");
  try {
    await stagePlugin(work);
    await mkdir(folder, { recursive: true });
    const { ok, output } = await runTool("npm", [
      "pack",
      work,
      "--ignore-scripts",
      "--silent",
      "--pack-destination",
      folder,
    ]);
    if (!ok) throw new Error(`npm pack failed:\n${output.trimEnd()}`);
    return join(folder, output.trim().split("\n").at(-1) ?? "");
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

if (import.meta.main) console.log(relative(root, await packPlugin(resolve(root, process.argv[2] ?? "dist"))));
