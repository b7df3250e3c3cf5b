import type { AccessControl } from "../access/access-control.ts";
import { type CallLimits, DEFAULT_CALL_LIMITS } from "../rpc/callers/call-limits.ts";
import { createConnectListener } from "../rpc/connect/connect-listener.ts";
import { createGrpcListener } from "../rpc/grpc/grpc-listener.ts";
import type { Backend } from "../rpc/handlers/backend.ts";
import { accessRule, admitToMetrics } from "../rpc/pipeline/access-rules.ts";
import { createAudit } from "../rpc/pipeline/audit.ts";
import { createPipeline, type Pipeline } from "../rpc/pipeline/pipeline.ts";
import { brakeNotes, databaseNotes } from "../rpc/services/health.ts";
import { createServices } from "../rpc/services/services.ts";
import { createConnectionGate, DEFAULT_CONNECTION_LIMITS } from "../rpc/sockets/connection-gate.ts";
import { createHostCheck } from "../rpc/sockets/host-check.ts";
import { DEFAULT_LISTENER_LIMITS } from "../rpc/sockets/limits.ts";
import type { Listener } from "../rpc/sockets/listener.ts";
import { MessageQueue } from "../rpc/sockets/message-queue.ts";
import { DEFAULT_RECEIVE_LIMITS, ReceiveBudget } from "../rpc/sockets/receive-budget.ts";
import { GzipResponses } from "../rpc/sockets/response-compression.ts";
import { SendBudget } from "../rpc/sockets/send-budget.ts";
import { StreamScheduler } from "../rpc/sockets/stream-scheduler.ts";
import type { DatabaseFaults } from "../storage/faults.ts";
import type { Metrics } from "../telemetry/metrics/metrics.ts";
import type { Drain } from "./drain.ts";
import { addGauges, type MetricSources, metricsPage } from "./metrics.ts";
import type { ServerOptions } from "./options.ts";

/** What the pipeline and the listeners serve, and what they report. */
export interface ListenerParts extends Omit<MetricSources, "gate" | "release"> {
  readonly metrics: Metrics;
  readonly backend: Backend;
  readonly faults: DatabaseFaults;
  readonly access: AccessControl;
  readonly drain: Drain;
}

export interface Listeners {
  readonly pipeline: Pipeline;
  readonly listeners: { readonly grpc: Listener; readonly connect: Listener };
}

/** The pipeline, and the two listeners around it. They share the limits of connections and of memory. */
export function createListeners(options: ServerOptions, parts: ListenerParts): Listeners {
  const { log } = options;
  const { backend, metrics, health, liveness, probe, faults, access, tls, drain } = parts;
  const gate = createConnectionGate(options.connectionLimits ?? DEFAULT_CONNECTION_LIMITS, log, metrics);
  addGauges(metrics, { ...parts, gate, release: options.release ?? { version: "unknown", commit: "unknown" } });
  const callLimits: CallLimits = options.callLimits ?? DEFAULT_CALL_LIMITS;
  const pipeline = createPipeline({
    log,
    metrics,
    tracing: options.tracing,
    callLimits,
    admission: drain.admission,
    access: {
      authenticate: access.authenticate,
      rule: accessRule,
      audit: createAudit(log, accessRule, options.audit, options.tracing),
    },
  });
  const budget = new ReceiveBudget({ ...DEFAULT_RECEIVE_LIMITS, messageMs: DEFAULT_LISTENER_LIMITS.requestMs });
  const allowedOrigins = options.allowedOrigins ?? [];
  const choice = options.access ?? { kind: "open" };
  const shared = {
    services: createServices(pipeline, health, backend, { reflection: options.reflection ?? true }),
    log,
    gate,
    tls,
    budget,
    sendBudget: new SendBudget(),
    queue: new MessageQueue(budget),
    scheduler: new StreamScheduler(),
    compression: options.compression === false ? undefined : new GzipResponses(),
    hostCheck: choice.kind === "open" ? createHostCheck(choice.allowedHosts ?? [], allowedOrigins) : undefined,
  };
  return {
    pipeline,
    listeners: {
      grpc: createGrpcListener(shared),
      connect: createConnectListener({
        ...shared,
        allowedOrigins,
        metrics: metricsPage(metrics),
        ready: () => health.why,
        mayReadMetrics: async (credentials) => admitToMetrics((await access.authenticate(credentials)).principal),
        notes: () => [...databaseNotes(probe.state, faults.texts), ...brakeNotes(liveness.brake)],
      }),
    },
  };
}
