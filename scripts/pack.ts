// Packs every package: npm run pack -- [FOLDER]. Default: dist/. Prints the tarballs.
//
// A checkout runs from its sources. Node does not strip types below node_modules, so what is packed is compiled first, each
// package in a temporary folder of its own (docs/adr/0068).
import { copyFile, cp, glob, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, posix, relative, resolve } from "node:path";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { stagePlugin } from "./openclaw-plugin.ts";
import { root, runTool } from "./run-tool.ts";

/** The fields of a package.json that are read here. */
interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly license: string;
  readonly type: string;
  readonly private?: boolean;
  readonly bin?: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string>>;
  /** The sources that do something when they are loaded. Bundlers leave out the unused parts of all others. */
  readonly sideEffects?: readonly string[];
  readonly dependencies?: Versions;
  readonly optionalDependencies?: Versions;
  readonly peerDependencies?: Versions;
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional: boolean }>>;
}
type Versions = Readonly<Record<string, string>>;

/** A package in its temporary folder, ready for `npm pack`. */
interface StagedPackage {
  readonly manifest: Manifest;
  readonly path: string;
  /** Declaration files by the names that programs import. */
  readonly declarations: Readonly<Record<string, string>>;
}

/** What each package needs to run. A checkout states none: `npm ci` brings its own Node, and npm would warn on an older one. */
const ENGINES: Readonly<Record<string, string>> = {
  "harborforge-agents": ">=22.13",
  "harborforge-agents-client": ">=22",
  "@harborforge/connect-grpc-js": ">=22",
  // node:sqlite.
  "@harborforge/embedded-postgres": ">=22.13",
};

/** Compiles and packs everything. @returns the tarballs */
async function packAll(folder: string): Promise<string[]> {
  const work = await temporaryFolder("pack");
  try {
    // Declarations that are compiled here find the same dependencies as the sources.
    await symlink(join(root, "node_modules"), join(work, "node_modules"), "dir");
    const libraries: StagedPackage[] = [];
    for (const name of ["client", "connect-grpc-js", "embedded-postgres"]) {
      libraries.push(await stageLibrary(posix.join("packages", name), join(work, name)));
    }
    const service = await stageService(join(work, "service"), libraries);
    const plugin = join(work, "openclaw");
    const version = await stagePlugin(plugin);
    if (version !== service.manifest.version) {
      throw new Error(
        `packages/openclaw has version ${version}: it must be ${service.manifest.version}, as in package.json.`,
      );
    }
    await mkdir(folder, { recursive: true });
    const tarballs: string[] = [];
    for (const path of [service.path, ...libraries.map((library) => library.path), plugin])
      tarballs.push(await pack(path, folder));
    return tarballs;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Compiles what the entries of a package reach to `dist/`, with declarations. */
async function stageLibrary(source: string, path: string): Promise<StagedPackage> {
  const manifest = await readManifest(source);
  const entries = Object.entries(manifest.exports).filter(([, file]) => file.endsWith(".ts"));
  await compile({
    files: entries.map(([, file]) => join(source, file)),
    configuration: `${path}.tsconfig.json`,
    options: { outDir: join(path, "dist"), declaration: true },
  });
  const packedAs = (file: string): string => `./${posix.join("dist", source, file)}`;
  const compiled = entries.map(([entry, file]) => [entry, packedAs(file)] as const);
  const { sideEffects } = manifest;
  await writeManifest(path, {
    ...common(manifest),
    ...(manifest.private === true ? { private: true } : {}),
    ...(sideEffects === undefined ? {} : { sideEffects: sideEffects.map((file) => compiledName(packedAs(file))) }),
    exports: {
      ...Object.fromEntries(compiled.map(([entry, file]) => [entry, conditions(file)])),
      "./package.json": "./package.json",
    },
    dependencies: manifest.dependencies,
    optionalDependencies: manifest.optionalDependencies,
    peerDependencies: manifest.peerDependencies,
    peerDependenciesMeta: manifest.peerDependenciesMeta,
  });
  await copyDocuments(source, path);
  const declarations = compiled.map(([entry, file]) => [
    posix.join(manifest.name, entry),
    join(path, file.replace(/\.ts$/, ".d.ts")),
  ]);
  return { manifest, path, declarations: Object.fromEntries(declarations) };
}

/**
 * Compiles the service to the layout of the checkout, in which its files find each other. The client is a dependency;
 * private packages go along in `node_modules`. npm does not install what a bundled package depends on, so that is listed
 * as the service's own.
 */
async function stageService(path: string, libraries: readonly StagedPackage[]): Promise<StagedPackage> {
  const manifest = await readManifest(".");
  const entries = Object.entries(manifest.exports).filter(([, file]) => file.endsWith(".ts"));
  const paths = Object.assign({}, ...libraries.map(({ declarations }) => declarations));
  // Against the packages as they are packed. Their sources would be compiled into this package otherwise.
  const options = {
    outDir: path,
    paths: Object.fromEntries(Object.entries(paths).map(([name, file]) => [name, [file]])),
  };
  await compile({
    files: ["src/main.ts", "src/simulate/claw-process.ts", ...entries.map(([, file]) => file)],
    configuration: `${path}.tsconfig.json`,
    options,
  });
  await compile({
    files: entries.map(([, file]) => file),
    configuration: `${path}-entries.tsconfig.json`,
    options: { ...options, declaration: true, emitDeclarationOnly: true },
  });
  for await (const file of glob(["migrations/*.sql", "src/**/*.sql"], { cwd: root })) {
    await mkdir(dirname(join(path, file)), { recursive: true });
    await copyFile(join(root, file), join(path, file));
  }
  for (const file of Object.values(manifest.bin ?? {})) await copyLauncher(file, path);
  await cp(join(root, "deploy"), join(path, "deploy"), { recursive: true });
  const bundled = libraries.filter((library) => library.manifest.private === true);
  for (const library of bundled) {
    await cp(library.path, join(path, "node_modules", library.manifest.name), { recursive: true });
  }
  const commit = await runTool("git", ["rev-parse", "HEAD"]);
  const parts = [...bundled.map((library) => library.manifest), manifest];
  await writeManifest(path, {
    ...common(manifest),
    // As npm writes it where it publishes a folder of a repository.
    ...(commit.ok ? { gitHead: commit.output.trim() } : {}),
    bin: manifest.bin,
    exports: {
      ...Object.fromEntries(entries.map(([entry, file]) => [entry, conditions(file)])),
      "./package.json": "./package.json",
    },
    dependencies: Object.assign({}, ...parts.map(({ dependencies }) => dependencies)),
    optionalDependencies: Object.assign({}, ...parts.map(({ optionalDependencies }) => optionalDependencies)),
    bundleDependencies: bundled.map((library) => library.manifest.name),
  });
  await copyDocuments(".", path);
  checkVersions(manifest, libraries);
  return { manifest, path, declarations: {} };
}

/** All packages of a checkout have one version, and the service depends on exactly that. */
function checkVersions({ version, dependencies = {} }: Manifest, libraries: readonly StagedPackage[]): void {
  for (const { manifest } of libraries) {
    const wanted = dependencies[manifest.name];
    if (manifest.version !== version || wanted !== version) {
      throw new Error(
        `${manifest.name} has version ${manifest.version}, and the service depends on ${wanted}: both must be ${version}, the version of package.json.`,
      );
    }
  }
}

interface Compilation {
  /** Sources, from the top of the checkout. What they import is compiled, too. */
  readonly files: readonly string[];
  /** Where the configuration is written. */
  readonly configuration: string;
  readonly options: Readonly<Record<string, unknown>>;
}

async function compile({ files, configuration, options }: Compilation): Promise<void> {
  const compilerOptions = {
    noEmit: false,
    allowImportingTsExtensions: false,
    rewriteRelativeImportExtensions: true,
    rootDir: root,
    typeRoots: [join(root, "node_modules/@types")],
    // Node 22 has no `using`.
    target: "es2023",
    ...options,
  };
  await mkdir(dirname(configuration), { recursive: true });
  await writeJson(configuration, {
    extends: join(root, "tsconfig.json"),
    compilerOptions,
    include: [],
    files: ["types/dependencies.d.ts", ...files].map((file) => join(root, file)),
  });
  await succeed("tsc", ["--project", configuration, "--pretty", "false"]);
}

async function pack(path: string, folder: string): Promise<string> {
  const output = await succeed("npm", ["pack", path, "--ignore-scripts", "--silent", "--pack-destination", folder]);
  return join(folder, output.trim().split("\n").at(-1) ?? "");
}

async function succeed(tool: string, args: readonly string[]): Promise<string> {
  const { ok, output } = await runTool(tool, args);
  if (!ok) throw new Error(`${tool} failed:\n${output.trimEnd()}`);
  return output;
}

function common({ name, version, description, license, type }: Manifest): object {
  return { name, version, description, license, type, engines: { node: ENGINES[name] } };
}

/** What an entry of `exports` says of a file that was a source. */
function conditions(source: string): object {
  return { types: source.replace(/\.ts$/, ".d.ts"), default: compiledName(source) };
}

function compiledName(source: string): string {
  return source.replace(/\.ts$/, ".js");
}

/** A launcher is JavaScript already. It imports a source, in the package the compiled file. */
async function copyLauncher(file: string, path: string): Promise<void> {
  const text = await readFile(join(root, file), "utf8");
  await mkdir(dirname(join(path, file)), { recursive: true });
  await writeFile(join(path, file), text.replaceAll(/(import\("[^"]+)\.ts"\)/g, '$1.js")'), { mode: 0o755 });
}

async function readManifest(folder: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(root, folder, "package.json"), "utf8"));
}

/** README of the package; license and change log of the checkout. */
async function copyDocuments(source: string, path: string): Promise<void> {
  await copyFile(join(root, source, "README.md"), join(path, "README.md"));
  for (const name of ["LICENSE", "CHANGELOG.md"]) await copyFile(join(root, name), join(path, name));
}

async function writeManifest(path: string, manifest: object): Promise<void> {
  await mkdir(path, { recursive: true });
  await writeJson(join(path, "package.json"), manifest);
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

for (const tarball of await packAll(resolve(root, process.argv[2] ?? "dist"))) console.log(relative(root, tarball));
