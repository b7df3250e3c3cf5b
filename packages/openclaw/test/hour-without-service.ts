// A program of memory.slow.test.ts: the turns of an hour in a gateway of 20 agents, while the service is away. Prints the growth of
// the memory in use, in bytes.
import { setImmediate } from "node:timers/promises";
import { createFakeGateway } from "./fake-gateway.ts";

const AGENTS = Array.from({ length: 20 }, (_, index) => `agent-${index}`);
const TURNS = 360;
const EVENTS = 28;
/** Every hundredth turn never ends. */
const STUCK = 100;

const { gc } = globalThis;
if (gc === undefined) throw new Error("run this with --expose-gc");

// Port 9 refuses connections.
const gateway = createFakeGateway({ claw: "claw-1", address: "127.0.0.1:9" }, AGENTS);
gateway.service.start();
await playTurns("warm-up", 10);
gc();
const before = inUse();
await playTurns("hour", TURNS);
gc();
console.log(inUse() - before);
gateway.hook("gateway_stop", {});
await gateway.service.stop();

async function playTurns(name: string, turns: number): Promise<void> {
  let count = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    for (const agentId of AGENTS) {
      count += 1;
      const origin = { runId: `${name}-${count}`, agentId, sessionKey: `agent:${agentId}:main` };
      gateway.hook("before_model_resolve", {}, origin);
      gateway.emit({ ...origin, stream: "lifecycle", data: { phase: "start" } });
      for (let event = 0; event < EVENTS; event += 1) {
        gateway.emit({ ...origin, stream: "assistant", data: { text: "word ".repeat(event) } });
      }
      if (count % STUCK !== 0) gateway.emit({ ...origin, stream: "lifecycle", data: { phase: "end" } });
    }
    await setImmediate();
  }
}

function inUse(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
