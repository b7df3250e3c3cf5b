import { rm } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { runTool, type ToolResult } from "./run-tool.ts";

/** The contract of the last release, which scripts/record-release.ts writes. It needs no network and no history. */
const RELEASED = "released/contract.binpb";

/** Checks that the contract is compatible with the last release, and with the previous commit. */
export async function checkBreaking(): Promise<ToolResult> {
  const released = await runTool("buf", ["breaking", "--against", RELEASED]);
  if (!released.ok) return released;
  const previous = await compareWithPrevious();
  return { ok: previous.ok, output: `compared with the last release\n${previous.output}` };
}

/**
 * Checks that the contract is compatible with the previous commit: HEAD if `proto` has uncommitted changes, otherwise
 * HEAD^. Passes with a note if there is none (first commit, shallow clone, no git).
 */
async function compareWithPrevious(): Promise<ToolResult> {
  const changed = await runTool("git", ["status", "--porcelain", "--", "proto", "buf.yaml"]);
  if (!changed.ok) return { ok: true, output: `not compared, git does not answer: ${changed.output.trim()}\n` };

  const base = changed.output === "" ? "HEAD^" : "HEAD";
  const commit = await runTool("git", ["rev-parse", "--verify", "--quiet", `${base}^{commit}`]);
  if (!commit.ok) return { ok: true, output: `not compared: there is no ${base} here\n` };

  const sha = commit.output.trim();
  const protos = await runTool("git", ["ls-tree", "-r", "--name-only", sha, "--", "buf.yaml", "proto"]);
  if (!protos.ok) return protos;
  if (!/^proto\/.*\.proto$/m.test(protos.output)) return { ok: true, output: `not compared: ${base} has no protos\n` };

  // Use an archive, because buf would clone, which fails in a shallow clone or a worktree.
  const folder = await temporaryFolder("breaking");
  try {
    const archive = join(folder, "previous.tar");
    const archived = await runTool("git", ["archive", "--format=tar", "-o", archive, sha, ...names(protos.output)]);
    if (!archived.ok) return archived;
    const compared = await runTool("buf", ["breaking", "--against", archive]);
    return compared.ok ? { ok: true, output: `compared with ${base}\n` } : compared;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function names(listing: string): string[] {
  return /^buf\.yaml$/m.test(listing) ? ["buf.yaml", "proto"] : ["proto"];
}
