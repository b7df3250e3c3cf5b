import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { execFile, temporaryFolder } from "./owned-process.ts";
import { checkout } from "./program.ts";

const run = promisify(execFile);

/** An empty project outside of the checkout, in which packed packages are installed. */
export interface PackedProject extends AsyncDisposable {
  readonly path: string;
  /** The files of an installed package, from its top. */
  filesOf(name: string): Promise<readonly string[]>;
}

/**
 * Packs all packages as `npm run pack` does and installs them into an empty project, offline: the tarballs are unpacked as npm
 * would, and links to this checkout replace what they depend on.
 *
 * @param names the packages to install. Default: all
 */
export async function openPackedProject(names?: readonly string[]): Promise<PackedProject> {
  const top = await temporaryFolder("packed");
  // Root runs PostgreSQL as another account, which has to enter the folder.
  await chmod(top, 0o711);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(top, { recursive: true, force: true }));
  // npm comes with the Node of the machine. It runs on the Node of the tests.
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const env = { PATH, HOME: top, npm_config_cache: join(top, ".npm"), npm_config_offline: "true" };
  const tarballs = join(top, "tarballs");
  await run(process.execPath, ["scripts/pack.ts", tarballs], { cwd: checkout, env });
  const path = join(top, "project");
  const modules = join(path, "node_modules");
  await mkdir(join(modules, ".bin"), { recursive: true });
  await writeFile(join(path, "package.json"), JSON.stringify({ name: "an-empty-project", type: "module" }));
  const wanted = new Set<string>();
  for (const tarball of await readdir(tarballs)) {
    const manifest = await unpack(join(tarballs, tarball), modules, names);
    for (const name of manifest === undefined ? [] : dependenciesOf(manifest)) wanted.add(name);
  }
  await linkPackages(path, [...wanted]);
  const everything = undo.move();
  return {
    path,
    filesOf: async (name) => {
      const all = await readdir(join(modules, name), { recursive: true, withFileTypes: true });
      const files = all.filter((entry) => entry.isFile());
      return files.map((entry) => relative(join(modules, name), join(entry.parentPath, entry.name))).sort();
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

interface Manifest {
  readonly name: string;
  readonly bin?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly bundleDependencies?: readonly string[];
}

/** @returns undefined for a package that is not asked for */
async function unpack(tarball: string, modules: string, names?: readonly string[]): Promise<Manifest | undefined> {
  const { stdout } = await run("tar", ["-xzOf", tarball, "package/package.json"]);
  const manifest: Manifest = JSON.parse(stdout);
  if (names !== undefined && !names.includes(manifest.name)) return undefined;
  const target = join(modules, manifest.name);
  await mkdir(target, { recursive: true });
  await run("tar", ["-xzf", tarball, "--strip-components=1", "-C", target]);
  for (const [command, file] of Object.entries(manifest.bin ?? {})) {
    await chmod(join(target, file), 0o755);
    await symlink(join(target, file), join(modules, ".bin", command));
  }
  return manifest;
}

/** Optional ones only where this checkout has them. */
function dependenciesOf({ dependencies, optionalDependencies, bundleDependencies = [] }: Manifest): string[] {
  const optional = Object.keys(optionalDependencies ?? {});
  const present = optional.filter((name) => existsSync(join(checkout, "node_modules", name)));
  return [...Object.keys(dependencies ?? {}), ...present].filter((name) => !bundleDependencies.includes(name));
}

/** Lets a project have packages of this checkout, except those that it has. */
export async function linkPackages(project: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const link = join(project, "node_modules", name);
    if (existsSync(link)) continue;
    await mkdir(dirname(link), { recursive: true });
    await symlink(join(checkout, "node_modules", name), link, "dir");
  }
}

/** The manifest of an installed package. */
export async function manifestOf(project: PackedProject, name: string): Promise<unknown> {
  return JSON.parse(await readFile(join(project.path, "node_modules", name, "package.json"), "utf8"));
}
