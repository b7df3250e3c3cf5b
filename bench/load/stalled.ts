// Watchers that stop reading while agents change, beside a watcher that reads.
import { setTimeout as sleep } from "node:timers/promises";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { type CountingWatch, callUnary, connect, openCountingWatch } from "./wire.ts";

const CHANGED = 1_000;
/** The usual window of clients. */
const WINDOW_BYTES = 65_535;
const PAUSE_MS = 100;

let address = "";
let agents = 0;
let prefix = "";
let writer: ReturnType<typeof connect> | undefined;
let revision = 0n;
let round = 0;
let transitions = 0;
let goal = 0;
let reached = (): void => undefined;
let held: CountingWatch[] = [];
const refusals: string[] = [];

doJobs({
  open: async (job: { address: string; prefix: string; agents: number }) => {
    ({ address, prefix, agents } = job);
    writer = connect(`http://${address}`);
    ({ revision } = await callUnary(writer, AgentService.method.getFleet, {}));
    openCountingWatch(connect(`http://${address}`), { afterRevision: revision }, ({ changes }) => {
      if (changes >= goal) reached();
    });
    return {};
  },
  /** Changes agents for a while. Measures the time from each response until the reading watcher got the change. */
  disturb: async ({ ms }: { ms: number }): Promise<LatencyFigures> => {
    if (writer === undefined) throw new Error("nothing was opened");
    const latency = new Latency();
    const until = performance.now() + ms;
    while (performance.now() < until) {
      const status = Math.floor((round * CHANGED) / agents) % 2 === 0 ? AgentStatus.BUSY : AgentStatus.ON_CALL;
      const first = (round * CHANGED) % agents;
      const beats = Array.from({ length: CHANGED }, (_, n) => ({ agentId: `${prefix}${first + n + 1}`, status }));
      round += 1;
      goal = transitions + CHANGED;
      const received = Promise.withResolvers<number>();
      reached = () => received.resolve(performance.now());
      await callUnary(writer, AgentService.method.sendHeartbeat, { beats, leaseTtl: { seconds: 600n } });
      const answered = performance.now();
      latency.record(Math.max(0, (await received.promise) - answered));
      transitions += CHANGED;
      await sleep(PAUSE_MS);
    }
    return latency.figures;
  },
  /** Half of them conflate. Each has a connection of its own. */
  stall: async ({ watchers }: { watchers: number }) => {
    held = Array.from({ length: watchers }, (_, n) => {
      const session = connect(`http://${address}`, WINDOW_BYTES);
      session.on("error", () => undefined);
      const request = { afterRevision: revision + BigInt(transitions), conflate: n % 2 === 0 };
      return openCountingWatch(session, request, undefined, (refusal) => refusals.push(refusal));
    });
    while (held.some(({ count }) => count.bookmarks === 0 && count.changes === 0)) await sleep(50);
    for (const { stream } of held) stream.pause();
    return {};
  },
  readOn: async () => {
    for (const { stream } of held) stream.resume();
    await sleep(5_000);
    return { refused: refusals.length, first: refusals[0] ?? "" };
  },
});
