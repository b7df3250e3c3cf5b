import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { execFileSync } from "./owned-process.ts";

/**
 * A Node of this major version: the one that `HARBORFORGE_TEST_NODE22` names, or one on the path. Undefined where there is none.
 */
export function nodeOfMajor(major: number): string | undefined {
  const named = process.env[`HARBORFORGE_TEST_NODE${major}`];
  const onPath = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "node"));
  return [...(named === undefined ? [] : [named]), ...onPath].find(
    (node) => existsSync(node) && execFileSync(node, ["--version"], { encoding: "utf8" }).startsWith(`v${major}.`),
  );
}
