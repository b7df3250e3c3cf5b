// Sets an agent's status at one replica, and measures how soon a watcher there and one at another replica get the
// change.
import type http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  WatchAgentsRequestSchema,
  WatchAgentsResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { doJobs } from "../harness/jobs.ts";
import { Latency, type LatencyFigures } from "./latency.ts";
import { callUnary, connect, framed, openStream, unframer } from "./wire.ts";

/** The maximum time between two changes, which is no multiple of an interval of the service. */
const PAUSE_MS = 20;

export interface NewsFigures {
  /** From the time of the transition in PostgreSQL, before its commit, until the watcher got it. */
  readonly same: LatencyFigures;
  readonly other: LatencyFigures;
  /** From the response to the change until the watcher got it; 0 if the watcher was first. */
  readonly sameFromAnswer: LatencyFigures;
  readonly otherFromAnswer: LatencyFigures;
  /** From the call to its response. */
  readonly answer: LatencyFigures;
}

interface Watcher {
  readonly session: http2.ClientHttp2Session;
  /** The next change, and when the watcher got it. */
  next(): Promise<{ occurredAtMs: number; at: number }>;
}

let watchers: Watcher[] = [];
let writer: http2.ClientHttp2Session | undefined;
let changes = 0;

/** Resolves when the watch has caught up. */
async function watch(address: string, agentId: string): Promise<Watcher> {
  const session = connect(`http://${address}`);
  const stream = openStream(session, AgentService.method.watchAgents);
  const complete = Promise.withResolvers<void>();
  let received = Promise.withResolvers<{ occurredAtMs: number; at: number }>();
  stream.on("error", complete.reject);
  stream.on(
    "data",
    unframer((bytes) => {
      const at = performance.now();
      const message = fromBinary(WatchAgentsResponseSchema, bytes);
      if (message.bookmark?.snapshotComplete === true) complete.resolve();
      const occurredAt = message.changes[0]?.transition?.occurredAt;
      if (occurredAt === undefined) return;
      received.resolve({ occurredAtMs: Number(occurredAt.seconds) * 1_000 + occurredAt.nanos / 1_000_000, at });
    }),
  );
  stream.end(
    framed(toBinary(WatchAgentsRequestSchema, create(WatchAgentsRequestSchema, { filter: { agentIds: [agentId] } }))),
  );
  await complete.promise;
  return {
    session,
    next: async () => {
      const news = await received.promise;
      received = Promise.withResolvers();
      return news;
    },
  };
}

doJobs({
  open: async ({ same, other, agentId }: { same: string; other: string; agentId: string }) => {
    watchers = await Promise.all([watch(same, agentId), watch(other, agentId)]);
    writer = connect(`http://${same}`);
    return {};
  },
  count: async ({ agentId, count }: { agentId: string; count: number }): Promise<NewsFigures> => {
    const [same, other] = watchers;
    if (same === undefined || other === undefined || writer === undefined) throw new Error("nothing was opened");
    const found = {
      same: new Latency(),
      other: new Latency(),
      sameFromAnswer: new Latency(),
      otherFromAnswer: new Latency(),
      answer: new Latency(),
    };
    for (let n = 0; n < count; n += 1, changes += 1) {
      const status = changes % 2 === 0 ? AgentStatus.BUSY : AgentStatus.ON_CALL;
      const begun = performance.now();
      await callUnary(writer, AgentService.method.updateAgentStatus, { agentId, status });
      const answered = performance.now();
      found.answer.record(answered - begun);
      for (const [name, watcher] of [["same", same] as const, ["other", other] as const]) {
        const { occurredAtMs, at } = await watcher.next();
        found[name].record(performance.timeOrigin + at - occurredAtMs);
        found[`${name}FromAnswer`].record(Math.max(0, at - answered));
      }
      await sleep(Math.random() * PAUSE_MS);
    }
    return {
      same: found.same.figures,
      other: found.other.figures,
      sameFromAnswer: found.sameFromAnswer.figures,
      otherFromAnswer: found.otherFromAnswer.figures,
      answer: found.answer.figures,
    };
  },
  close: async () => {
    for (const { session } of watchers) session.destroy();
    writer?.destroy();
    return {};
  },
});
