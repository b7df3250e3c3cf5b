import { rm } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { runTool, type ToolResult } from "./run-tool.ts";

/**
 * Says whether the contract breaks who was built against the previous commit: the last one where `proto` has changes
 * that are not committed, else the one before it. Where there is none (first commit, shallow clone, no git) it says so
 * and passes.
 */
export async function checkBreaking(): Promise<ToolResult> {
  const changed = await runTool("git", ["status", "--porcelain", "--", "proto", "buf.yaml"]);
  if (!changed.ok) return { ok: true, output: `not compared, git does not answer: ${changed.output.trim()}\n` };

  const base = changed.output === "" ? "HEAD^" : "HEAD";
  const commit = await runTool("git", ["rev-parse", "--verify", "--quiet", `${base}^{commit}`]);
  if (!commit.ok) return { ok: true, output: `not compared: there is no ${base} here\n` };

  const sha = commit.output.trim();
  const protos = await runTool("git", ["ls-tree", "-r", "--name-only", sha, "--", "buf.yaml", "proto"]);
  if (!protos.ok) return protos;
  if (!/^proto\/.*\.proto$/m.test(protos.output)) return { ok: true, output: `not compared: ${base} has no protos\n` };

  // An archive and not buf's own reading of git: that clones, which neither a shallow clone nor a worktree bears.
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
