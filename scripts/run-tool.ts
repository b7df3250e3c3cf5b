import { delimiter, join } from "node:path";
import { spawn } from "../test/support/owned-process.ts";

/** The top of the checkout: scripts do the same from whatever folder they are started. */
export const root = join(import.meta.dirname, "..");

/** How a tool ended, with all it printed, in the order in which it came. */
export interface ToolResult {
  readonly ok: boolean;
  readonly output: string;
}

/**
 * Runs a program of the checkout's own `node_modules`, or of the machine, to its end. A tool that cannot be started is
 * a failed one, not an exception.
 */
export function runTool(name: string, args: readonly string[]): Promise<ToolResult> {
  const path = [join(root, "node_modules", ".bin"), process.env.PATH].join(delimiter);
  return new Promise((resolve) => {
    const child = spawn(name, args, {
      cwd: root,
      env: { ...process.env, PATH: path },
      stdio: ["ignore", "pipe", "pipe"],
      // Windows starts the wrappers in .bin through its shell only.
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
