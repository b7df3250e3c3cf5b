// Sends heartbeats as HTTP requests over many connections, with one request in flight on each.
import { Agent, request } from "node:http";
import { doJobs } from "../harness/jobs.ts";
import type { HeartbeatFigures } from "./heartbeats.ts";
import { Latency } from "./latency.ts";

export interface PostJob {
  readonly url: string;
  readonly connections: number;
  readonly prefix: string;
  readonly agents: number;
  readonly ms: number;
}

doJobs({
  count: async ({ url, connections, prefix, agents, ms }: PostJob): Promise<HeartbeatFigures> => {
    const agent = new Agent({ keepAlive: true, maxSockets: connections });
    const latency = new Latency();
    const cpu = process.cpuUsage();
    const begin = performance.now();
    let messages = 0;
    const client = async (n: number): Promise<void> => {
      for (let turn = 0; performance.now() - begin < ms; turn += 1) {
        const sentAt = performance.now();
        await post(agent, `${url}/agents/${prefix}${((n + turn * connections) % agents) + 1}/heartbeat`);
        latency.record(performance.now() - sentAt);
        messages += 1;
      }
    };
    await Promise.all(Array.from({ length: connections }, (_, n) => client(n)));
    const took = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    agent.destroy();
    const loadCpuMs = (user + system) / 1_000;
    return { messages, answers: messages, ms: took, loadCpuMs, sentBytes: 0, receivedBytes: 0, ...latency.figures };
  },
});

function post(agent: Agent, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = request(url, { method: "POST", agent, headers: { "content-type": "application/json" } }, (answer) => {
      answer.resume();
      answer.on("end", () =>
        answer.statusCode === 200 ? resolve() : reject(new Error(`status ${answer.statusCode}`)),
      );
    });
    call.on("error", reject);
    call.end('{"status": "idle"}');
  });
}
