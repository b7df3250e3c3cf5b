import { readFile } from "node:fs/promises";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { spawnSync } from "../../test/support/owned-process.ts";
import { PINNED, TOP } from "./processes.ts";

/** The machine of the measurement. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly node: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly pinned: boolean;
}

export async function describeMachine(): Promise<Machine> {
  const { dependencies } = JSON.parse(await readFile(`${TOP}/package.json`, "utf8"));
  const versions: Record<string, string> = {};
  for (const name of ["@grpc/grpc-js", "@connectrpc/connect", "@bufbuild/protobuf", "pg"])
    versions[name] = dependencies[name];
  return {
    processor: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    versions,
    pinned: PINNED,
  };
}

/** The measured commit, with a `+` if files have changed since. */
export function measuredCommit(): string {
  const git = (...args: string[]) => spawnSync("git", args, { cwd: TOP, encoding: "utf8" });
  const { status, stdout } = git("rev-parse", "--short=10", "HEAD");
  if (status !== 0) return "unknown";
  const changed = git("diff", "--quiet", "HEAD", "--", "src", "migrations", "package-lock.json").status !== 0;
  return `${stdout.trim()}${changed ? "+" : ""}`;
}
