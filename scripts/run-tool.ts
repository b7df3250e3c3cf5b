import { delimiter, join } from "node:path";
import { spawn } from "../test/support/owned-process.ts";

/** The root of the checkout, so that scripts work in any current folder. */
export const root = join(import.meta.dirname, "..");

/** The result of a tool, with its output in order. */
export interface ToolResult {
  readonly ok: boolean;
  readonly output: string;
}

/**
 * Runs a program of `node_modules` or of the machine to its end. A tool that fails to start counts as failed; this is
 * not an exception.
 */
export function runTool(name: string, args: readonly string[]): Promise<ToolResult> {
  const path = [join(root, "node_modules", ".bin"), process.env.PATH].join(delimiter);
  return new Promise((resolve) => {
    const child = spawn(name, args, {
      cwd: root,
      env: { ...process.env, PATH: path },
      stdio: ["ignore", "pipe", "pipe"],
      // Windows can start the wrappers in .bin only through its shell.
      shell: process.platform === "win32",
    });
    const chunks: Buffer[] = [];
    const keep = (chunk: Buffer) => chunks.push(chunk);
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", (error) => resolve({ ok: false, output: `${name} does not start: ${error.message}\n` }));
    child.on("close", (code) => resolve({ ok: code === 0, output: Buffer.concat(chunks).toString() }));
  });
}
