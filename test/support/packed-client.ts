import { copyFile, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { execFile, temporaryFolder } from "./owned-process.ts";
import { checkout } from "./program.ts";

const run = promisify(execFile);

/** A project of somebody else's, with the client installed. */
export interface ClientProject extends AsyncDisposable {
  readonly path: string;
  /** The files of the package, from its top. */
  readonly packed: readonly string[];
}

/**
 * Builds and packs the client as `npm pack` does in the checkout, but beside it, since others may do the same; and installs
 * the tarball into an empty project, offline: it is unpacked as npm would, and what it depends on is linked from this
 * checkout instead of being fetched.
 */
export async function openClientProject(): Promise<ClientProject> {
  const path = await temporaryFolder("client");
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(path, { recursive: true, force: true }));
  const source = join(path, "source");
  await mkdir(join(source, "src"), { recursive: true });
  const files = ["package.json", "README.md", "LICENSE", "src/main.ts"];
  for (const name of files) await copyFile(join(checkout, name), join(source, name));
  await run(process.execPath, ["scripts/build.ts", join(source, "dist")], { cwd: checkout });
  // npm comes with whatever Node is installed; what it runs is this Node's.
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const env = { PATH, HOME: path, npm_config_cache: join(path, ".npm"), npm_config_offline: "true" };
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", path];
  const { stdout } = await run("npm", pack, { cwd: source, env });
  const project = join(path, "project");
  const target = join(project, "node_modules/harborforge-agents");
  await mkdir(target, { recursive: true });
  const [tarball = ""] = (await readdir(path)).filter((name) => name.endsWith(".tgz"));
  await run("tar", ["-xzf", join(path, tarball), "--strip-components=1", "-C", target]);
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "somebody-elses", type: "module" }));
  const dependencies = [
    "@bufbuild/protobuf",
    "@bufbuild/protovalidate",
    "@connectrpc/connect",
    "@connectrpc/connect-node",
  ];
  await linkPackages(project, dependencies);
  const everything = undo.move();
  return { path: project, packed: filesOf(stdout), [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

/** Lets a project have packages of this checkout. */
export async function linkPackages(project: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const link = join(project, "node_modules", name);
    await mkdir(dirname(link), { recursive: true });
    await symlink(join(checkout, "node_modules", name), link, "dir");
  }
}

function filesOf(stdout: string): string[] {
  return [...stdout.matchAll(/^\s+"path": "(.+)",?$/gm)].map(([, name = ""]) => name);
}
