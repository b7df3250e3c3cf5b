import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import type { RunnableBlock } from "./fenced-blocks.ts";
import { type Running, type Serving, type Stage, says } from "./program.ts";

/** The same with the addresses of a server that the test started. */
export function addressed(code: string, { grpc, http }: Serving): string {
  return code.replaceAll("127.0.0.1:50051", new URL(grpc).host).replaceAll("127.0.0.1:8080", new URL(http).host);
}

export interface BlockDependencies {
  /** The folder of a project that has the client installed, for blocks that import it. Default: the checkout's own. */
  readonly project?: string;
  /** The Node that runs these blocks. Default: the one that runs the tests. */
  readonly node?: string;
  /** Ends the blocks that run beside later ones. */
  readonly beside?: AsyncDisposableStack;
}

/** Runs a block unchanged. */
export async function runBlock(
  stage: Stage,
  block: RunnableBlock,
  serving: Serving,
  { project, node = process.execPath, beside }: BlockDependencies = {},
): Promise<void> {
  const code = addressed(block.code, serving);
  const running = await start(stage, { ...block, code }, project, node);
  if (block.runs === "to its end") {
    const { code: exitCode, stdout, stderr } = await running.ended;
    expect({ exitCode, stderr }, block.code).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout, block.code).toContain(block.shows);
    return;
  }
  const interrupt = async () => {
    running.killGroup("SIGINT");
    await running.ended;
  };
  if (block.runs === "beside") {
    if (beside === undefined) throw new Error(`nothing would end a block that runs beside others: ${block.code}`);
    beside.defer(interrupt);
  }
  await says(running, block.shows);
  if (block.runs === "until") await interrupt();
}

async function start(
  stage: Stage,
  { language, code }: RunnableBlock,
  project: string | undefined,
  node: string,
): Promise<Running> {
  if (language !== "js") return stage.run("sh", ["-e", "-c", code], { group: true });
  if (project === undefined || !/from "harborforge-agents-client\b/.test(code)) {
    return stage.run(process.execPath, ["--input-type=module", "--eval", code], { group: true });
  }
  const program = join(project, `block-${randomUUID()}.mjs`);
  await writeFile(program, code);
  return stage.run(node, [program], { group: true });
}
