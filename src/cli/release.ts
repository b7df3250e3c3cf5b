import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Release } from "../server/options.ts";

const ROOT = new URL("../../", import.meta.url);
const GIT_MS = 2_000;

/** Version and commit. A package has its commit in `package.json`, as npm writes it; a checkout asks git. */
export function readRelease(): Release {
  const { version, gitHead } = manifest();
  return {
    version: String(version),
    commit: typeof gitHead === "string" ? gitHead : (checkedOutCommit() ?? "unknown"),
  };
}

function checkedOutCommit(): string | undefined {
  // Otherwise git would name the commit of a repository around this folder.
  if (!existsSync(new URL(".git", ROOT))) return undefined;
  try {
    const options = { cwd: fileURLToPath(ROOT), encoding: "utf8", timeout: GIT_MS, stdio: "pipe" } as const;
    return execFileSync("git", ["rev-parse", "HEAD"], options).trim();
  } catch {
    return undefined;
  }
}

function manifest(): { readonly version?: unknown; readonly gitHead?: unknown } {
  const parsed: unknown = JSON.parse(readFileSync(new URL("package.json", ROOT), "utf8"));
  return typeof parsed === "object" && parsed !== null ? { ...parsed } : {};
}
