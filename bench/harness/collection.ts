import { once } from "node:events";
import type { Started } from "./processes.ts";

/** For the environment of a Node program: its inspector takes a free port. */
export const INSPECTABLE = { NODE_OPTIONS: "--inspect-port=127.0.0.1:0" };

const WAKE_MS = 10_000;
const COLLECT_MS = 30_000;

/**
 * Makes a Node program collect all its garbage, so that its memory is what it needs. It needs no flag: a signal starts
 * the inspector, which is part of Node.
 */
export async function collectGarbage(program: Started): Promise<void> {
  const socket = new WebSocket(await inspectorOf(program));
  await once(socket, "open", { signal: AbortSignal.timeout(WAKE_MS) });
  try {
    for (const [id, method] of [
      "HeapProfiler.enable",
      "HeapProfiler.collectGarbage",
      "HeapProfiler.collectGarbage",
    ].entries()) {
      const answered = Promise.withResolvers<void>();
      const late = setTimeout(() => answered.reject(new Error(`${method} was not answered`)), COLLECT_MS);
      socket.onmessage = ({ data }) => {
        if (JSON.parse(String(data)).id === id) answered.resolve();
      };
      socket.send(JSON.stringify({ id, method }));
      await answered.promise.finally(() => clearTimeout(late));
    }
  } finally {
    socket.close();
  }
}

async function inspectorOf(program: Started): Promise<string> {
  const deadline = performance.now() + WAKE_MS;
  for (let woken = false; ; woken = true) {
    const [, address] = /Debugger listening on (ws:\S+)/.exec(program.complained()) ?? [];
    if (address !== undefined) return address;
    if (!woken) program.child.kill("SIGUSR1");
    if (performance.now() > deadline) throw new Error("the inspector does not listen");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
