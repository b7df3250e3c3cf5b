// Many watchers, each of which counts its events. A round changes agents by one heartbeat, and ends when all watchers
// have the changes.
import type http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { callUnary, connect, openCountingWatch } from "./wire.ts";

const CONNECTIONS = 10;
const ROUND_MS = 60_000;

export interface FanOutJob {
  readonly address: string;
  readonly prefix: string;
  readonly agents: number;
  readonly watchers: number;
  /** Each watches the whole fleet, or the n-th watcher watches the n-th agent. */
  readonly what: "everything" | "one agent each";
}

export interface FanOutFigures extends LatencyFigures {
  readonly events: number;
  readonly ms: number;
  readonly loadCpuMs: number;
}

let job: FanOutJob | undefined;
let sessions: http2.ClientHttp2Session[] = [];
let writer: http2.ClientHttp2Session | undefined;
const busy: boolean[] = [];
let delivered = 0;
let goal = Number.POSITIVE_INFINITY;
let reached = (): void => undefined;
let arrivals: number[] = [];

doJobs({
  /** Resolves when all watchers have their snapshots. */
  open: async (asked: FanOutJob) => {
    job = asked;
    sessions = Array.from({ length: CONNECTIONS }, () => connect(`http://${asked.address}`));
    writer = connect(`http://${asked.address}`);
    const begin = performance.now();
    const watches = Array.from({ length: asked.watchers }, (_, n) => {
      let known = 0;
      const session = sessions[n % CONNECTIONS];
      if (session === undefined) throw new TypeError("no connection");
      const filter = asked.what === "everything" ? {} : { filter: { agentIds: [`${asked.prefix}${n + 1}`] } };
      return openCountingWatch(session, filter, ({ changes }) => {
        if (changes === known) return;
        delivered += changes - known;
        known = changes;
        if (asked.what !== "everything") arrivals.push(performance.now());
        if (delivered >= goal) reached();
      });
    });
    const snapshot = asked.what === "everything" ? asked.agents : 1;
    while (watches.some(({ count }) => count.snapshotAgents < snapshot)) await sleep(20);
    return { ms: performance.now() - begin };
  },
  round: async ({ first, size }: { first: number; size: number }): Promise<FanOutFigures> => {
    if (job === undefined || writer === undefined) throw new Error("nothing was opened");
    const { prefix, what, watchers } = job;
    const beats = Array.from({ length: size }, (_, index) => {
      const n = first + index;
      busy[n] = busy[n] !== true;
      return { agentId: `${prefix}${n + 1}`, status: busy[n] ? AgentStatus.BUSY : AgentStatus.ON_CALL };
    });
    const events = what === "everything" ? size * watchers : size;
    const done = Promise.withResolvers<void>();
    const late = setTimeout(
      () => done.reject(new Error(`${goal - delivered} of ${events} events did not come`)),
      ROUND_MS,
    );
    reached = done.resolve;
    goal = delivered + events;
    arrivals = [];
    const latency = new Latency();
    const cpu = process.cpuUsage();
    const begun = performance.now();
    await callUnary(writer, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } });
    const answered = performance.now();
    await done.promise;
    clearTimeout(late);
    const ms = performance.now() - begun;
    for (const at of arrivals) latency.record(Math.max(0, at - answered));
    const { user, system } = process.cpuUsage(cpu);
    return { events, ms, loadCpuMs: (user + system) / 1_000, ...latency.figures };
  },
  close: async () => {
    for (const session of sessions) session.destroy();
    writer?.destroy();
    return {};
  },
});
