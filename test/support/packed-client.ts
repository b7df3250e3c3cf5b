import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { checkout } from "./program.ts";

const run = promisify(execFile);

/** A project of somebody else's, with the client installed. */
export interface ClientProject extends AsyncDisposable {
  readonly path: string;
  /** The files of the package, from its top. */
  readonly packed: readonly string[];
}

/**
 * Builds and packs the client as `npm pack` does, and installs the tarball into an empty project, offline: it is unpacked
 * as npm would, and what it depends on is linked from this checkout instead of being fetched.
 */
export async function openClientProject(): Promise<ClientProject> {
  const path = await mkdtemp(join(tmpdir(), "harborforge-client-"));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(path, { recursive: true, force: true }));
  // npm comes with whatever Node is installed; what it runs is this Node's.
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const env = { PATH, HOME: path, npm_config_cache: join(path, ".npm"), npm_config_offline: "true" };
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", path], { cwd: checkout, env });
  const packed = filesOf(stdout);
  const [tarball = ""] = (await readdir(path)).filter((name) => name.endsWith(".tgz"));
  const modules = join(path, "node_modules");
  const target = join(modules, "harborforge-agents");
  await mkdir(target, { recursive: true });
  await run("tar", ["-xzf", join(path, tarball), "--strip-components=1", "-C", target]);
  for (const name of ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-node"]) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(checkout, "node_modules", name), join(modules, name), "dir");
  }
  await writeFile(
    join(path, "package.json"),
    JSON.stringify({ name: "somebody-elses", type: "module", private: true }),
  );
  const everything = undo.move();
  return { path, packed, [Symbol.asyncDispose]: () => everything.disposeAsync() };
}

/** What is printed before the JSON comes from the build. */
function filesOf(stdout: string): string[] {
  return [...stdout.slice(stdout.indexOf("[\n")).matchAll(/^\s+"path": "(.+)",?$/gm)].map(([, name = ""]) => name);
}
