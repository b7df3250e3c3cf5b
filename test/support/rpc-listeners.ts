import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { ResponseCompression } from "@harborforge/connect-grpc-js";
import { pino } from "pino";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService, HeartbeatResponseSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { invalidField, Refusal } from "../../src/domain/errors.ts";
import { createConnectListener } from "../../src/rpc/connect/connect-listener.ts";
import { createGrpcListener } from "../../src/rpc/grpc/grpc-listener.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "../../src/rpc/pipeline/pipeline.ts";
import { createHealth, type Health } from "../../src/rpc/services/health.ts";
import { standardServices } from "../../src/rpc/services/standard-services.ts";
import {
  type ConnectionGate,
  type ConnectionLimits,
  createConnectionGate,
  DEFAULT_CONNECTION_LIMITS,
} from "../../src/rpc/sockets/connection-gate.ts";
import { DEFAULT_LISTENER_LIMITS } from "../../src/rpc/sockets/limits.ts";
import type { Listener } from "../../src/rpc/sockets/listener.ts";
import { MessageQueue } from "../../src/rpc/sockets/message-queue.ts";
import { DEFAULT_RECEIVE_LIMITS, ReceiveBudget, type ReceiveLimits } from "../../src/rpc/sockets/receive-budget.ts";
import { DEFAULT_SEND_LIMITS, SendBudget, type SendLimits } from "../../src/rpc/sockets/send-budget.ts";
import { StreamScheduler } from "../../src/rpc/sockets/stream-scheduler.ts";
import { createTls, type Tls, type TlsOptions } from "../../src/rpc/tls/tls-acceptor.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";

/** Short, so that a test can wait for a limit that is a minute in production. */
export const SHORT_LIMITS = {
  writeStallMs: 400,
  lingerMs: 300,
  requestMs: 300,
  sniffMs: 200,
  headersMs: 300,
  wholeRequestMs: 600,
};

/** What the fake handlers received, for tests to wait for. */
export interface Seen {
  /** Streams whose handler runs. */
  openHandlers: number;
  /** The end of each heartbeat stream's input: `end`, or the error's code. */
  readonly inputEnds: (string | number)[];
  readonly beats: number[];
  readonly signals: AbortSignal[];
  /** The messages that the watch handler was asked for. */
  watchMessages: number;
}

/** Handlers that exercise a listener, without any rule of the domain. */
export function fakeAgentService(seen: Seen): Partial<ServiceImpl<typeof AgentService>> {
  return {
    getAgent: async ({ key }, context) => {
      const agentId = key.case === "agentId" ? key.value : "";
      context.responseHeader.set("x-fake-header", "header");
      context.responseTrailer.set("x-fake-trailer", "trailer");
      seen.signals.push(context.signal);
      switch (agentId) {
        case "missing":
          throw new Refusal("AGENT_NOT_FOUND", "there is no agent missing", { metadata: { agentId } });
        case "invalid":
          throw invalidField("agent_id", "must be nice");
        case "broken":
          throw new Error("the secret of the house");
        case "busy":
          throw new Refusal("DATABASE_UNAVAILABLE", "the database is away: try again", { retryAfterMs: 1_500 });
        case "never":
          return await new Promise<never>(() => undefined);
        case "late-throw":
          return await lateThrow(context);
        default:
          return { agent: { id: 7n, agentId, status: AgentStatus.IDLE } };
      }
    },
    listAgents: ({ filter }) => ({ agents: (filter?.agentIds ?? []).map((agentId) => ({ agentId })), revision: 3n }),
    sendHeartbeat: ({ beats }) => ({ results: beats.map(({ agentId, status }) => ({ agentId, status })) }),
    async *watchAgents({ filter }, { signal }) {
      seen.openHandlers += 1;
      seen.signals.push(signal);
      try {
        const [mode] = filter?.agentIds ?? [];
        if (mode === "flood") {
          for (let revision = 1n; !signal.aborted; revision += 1n) {
            seen.watchMessages += 1;
            yield { revision, snapshotAgents: [{ agentId: "x".repeat(32_000) }] };
          }
          return;
        }
        yield { revision: 1n, bookmark: { snapshotComplete: true } };
        if (mode === "slow-watcher") {
          throw new Refusal("WATCHER_TOO_SLOW", "read faster", { metadata: { revision: "1" } });
        }
        if (mode === "isolated") await new Promise<never>(() => undefined);
        await aborted(signal);
      } finally {
        seen.openHandlers -= 1;
      }
    },
    async *heartbeat(requests, { signal }) {
      seen.openHandlers += 1;
      seen.signals.push(signal);
      try {
        yield { limits: { maxBeats: 1_000 } };
        for await (const { sequence, beats } of requests) {
          seen.beats.push(beats.length);
          if (sequence === 666n) throw new Refusal("INVALID_FIELD", "sequence: must grow");
          yield create(HeartbeatResponseSchema, { acknowledgedSequence: sequence });
        }
        seen.inputEnds.push("end");
      } catch (error) {
        seen.inputEnds.push(error instanceof Error && "code" in error ? Number(error.code) : "unknown error");
        throw error;
      } finally {
        seen.openHandlers -= 1;
      }
    },
  };
}

const fakeUserService: Partial<ServiceImpl<typeof UserService>> = {
  createUser: ({ username, displayName }) => ({ user: { id: 1n, username, displayName } }),
  getUser: ({ key }) => ({ user: { id: key.case === "id" ? key.value : 9n, username: "ada" } }),
};

async function lateThrow({ signal }: HandlerContext): Promise<never> {
  await aborted(signal);
  throw new Error("thrown after the deadline");
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export interface RunningListeners extends AsyncDisposable {
  /** `host:port` */
  readonly grpcAddress: string;
  readonly connectAddress: string;
  readonly grpcListener: Listener;
  readonly connectListener: Listener;
  readonly pipeline: Pipeline;
  readonly health: Health;
  readonly seen: Seen;
  readonly logged: string[];
  readonly gate: ConnectionGate;
  readonly budget: ReceiveBudget;
  readonly queue: MessageQueue;
  readonly sendBudget: SendBudget;
  readonly tls: Tls | undefined;
  refuse: Refusal | undefined;
}

interface ListenerOptions extends Partial<Omit<PipelineOptions, "log" | "metrics" | "admission">> {
  readonly limits?: Parameters<typeof createConnectListener>[0]["limits"];
  readonly connectionLimits?: Partial<ConnectionLimits>;
  readonly receiveLimits?: Partial<ReceiveLimits>;
  readonly sendLimits?: Partial<SendLimits>;
  readonly tls?: Omit<TlsOptions, "log">;
  readonly scheduler?: StreamScheduler;
  /** Default: responses are not compressed, so that tests know their sizes. */
  readonly compression?: ResponseCompression;
}

/** Starts both listeners on free ports, before the same fake handlers. */
export async function startListeners({
  limits = {},
  connectionLimits = {},
  receiveLimits = {},
  sendLimits = {},
  tls: tlsSettings,
  scheduler = new StreamScheduler(),
  compression,
  ...pipelineOptions
}: ListenerOptions = {}): Promise<RunningListeners> {
  const seen: Seen = { openHandlers: 0, inputEnds: [], beats: [], signals: [], watchMessages: 0 };
  const logged: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => logged.push(line) });
  const metrics = new Metrics();
  const health = createHealth();
  const admission: { refuse: Refusal | undefined } = { refuse: undefined };
  const pipeline = createPipeline({ ...pipelineOptions, log, metrics, admission: () => admission.refuse });
  const services = [
    pipeline.wrap(AgentService, fakeAgentService(seen)),
    pipeline.wrap(UserService, fakeUserService),
    ...standardServices(pipeline, health, [AgentService, UserService]),
  ];
  const gate = createConnectionGate({ ...DEFAULT_CONNECTION_LIMITS, ...connectionLimits }, log);
  const tls = tlsSettings === undefined ? undefined : createTls({ ...tlsSettings, log });
  const budget = new ReceiveBudget({
    ...DEFAULT_RECEIVE_LIMITS,
    messageMs: limits.requestMs ?? DEFAULT_LISTENER_LIMITS.requestMs,
    ...receiveLimits,
  });
  const queue = new MessageQueue(budget);
  const sendBudget = new SendBudget({ ...DEFAULT_SEND_LIMITS, ...sendLimits });
  const common = { services, log, gate, tls, limits, budget, queue, sendBudget, scheduler, compression };
  const grpcListener = createGrpcListener(common);
  const connectListener = createConnectListener({ ...common, metrics, ready: () => health.why });
  return {
    grpcAddress: await grpcListener.start("127.0.0.1:0"),
    connectAddress: await connectListener.start("127.0.0.1:0"),
    grpcListener,
    connectListener,
    pipeline,
    health,
    seen,
    logged,
    gate,
    budget,
    queue,
    sendBudget,
    tls,
    get refuse() {
      return admission.refuse;
    },
    set refuse(refusal) {
      admission.refuse = refusal;
    },
    [Symbol.asyncDispose]: async () => {
      tls?.close();
      await Promise.all([grpcListener.close(), connectListener.close()]);
    },
  };
}

/** Waits until a condition holds; fails with its text when it does not within `timeoutMs`. */
export async function eventually(what: string, holds: () => boolean, timeoutMs = 40_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
