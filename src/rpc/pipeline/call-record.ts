import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Logger } from "../../../common/logging/logger.ts";
import { CodeSchema } from "../../../gen/google/rpc/code_pb.ts";
import type { Count } from "../../telemetry/metrics/count.ts";
import type { Distribution } from "../../telemetry/metrics/distribution.ts";
import type { LabelsOf } from "../../telemetry/metrics/metric-table.ts";
import type { Metrics } from "../../telemetry/metrics/metrics.ts";
import { type ListenerName, peerKey } from "../callers/call-values.ts";
import { errorInfoReason, exceededLimit, isDefect, reasonText } from "../errors/error-table.ts";

/** The least time between two logged causes of database failures, in milliseconds. */
const DATABASE_REPORT_MS = 10_000;

/** The entry of one call in log and metrics. */
export interface CallRecord {
  readonly ended: boolean;
  /** The trace of the call, for its log lines. Undefined: tracing is off. */
  traceId: string | undefined;
  /** Records the first message of a stream, once. */
  begin(): void;
  /** Records the end of the call, once. Undefined: the call succeeded. */
  end(error: ConnectError | undefined): void;
}

/** Records the calls of one method. */
export interface MethodRecorder {
  start(context: HandlerContext): CallRecord;
}

export interface CallRecorder {
  of(method: DescMethod): MethodRecorder;
  readonly inProgress: number;
}

/**
 * Records calls in metrics and log. It logs failed calls (debug; error with the cause for internal errors; a warning with the cause
 * at times for database errors) and slow unary calls (info). Payloads are never logged. Labels come only from descriptors, codes
 * and listeners, so their number is bounded.
 */
export function createCallRecorder(log: Logger, metrics: Metrics, slowMs: number): CallRecorder {
  const openStreams = new Map<string, { open: number }>();
  metrics.gauges("harborforge_rpc_open_streams", () =>
    [...openStreams].map(([method, { open }]) => [{ method }, open] as const),
  );
  let inProgress = 0;
  let databaseReportedAt = Number.NEGATIVE_INFINITY;
  let databaseFailures = 0;

  function of(method: DescMethod): MethodRecorder {
    const name = methodName(method);
    const streaming = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    const streams = { open: 0 };
    if (streaming) openStreams.set(name, streams);
    const series = new MethodSeries(metrics, name, streaming);
    const ended = (record: Record, ms: number, error: ConnectError | undefined): void => {
      inProgress -= 1;
      if (streaming) streams.open -= 1;
      series.ended(record.listener, record.begun, ms / 1_000, error);
      if (error?.code === Code.ResourceExhausted) countLimit(metrics, error);
      report(name, ms, streaming, record.traceId, error);
    };
    const begun = (record: Record, ms: number): void => series.began(record.listener, ms / 1_000);
    return {
      start: (context) => {
        inProgress += 1;
        if (streaming) streams.open += 1;
        return new Record(context.values.get(peerKey).listener, begun, ended);
      },
    };
  }

  function report(
    method: string,
    ms: number,
    streaming: boolean,
    traceId: string | undefined,
    error: ConnectError | undefined,
  ): void {
    const slow = !streaming && ms >= slowMs;
    if (error === undefined && !slow) return;
    const line = {
      method,
      ms: Math.round(ms),
      ...(error === undefined ? {} : { code: codeText(error.code) }),
      ...(traceId === undefined ? {} : { traceId }),
    };
    if (error !== undefined && isDefect(error))
      log.error(
        { event: "call.internal_error", ...line, err: error.cause ?? error },
        "call failed with an internal error",
      );
    else if (error === undefined) log.info({ event: "call.slow", ...line }, "slow call");
    else if (isDatabaseFailure(error) && databaseReportIsDue()) {
      const facts = { ...line, reason: errorInfoReason(error), err: error.cause, failures: databaseFailures };
      log.warn({ event: "call.database_failed", ...facts }, "calls fail at the database");
      databaseFailures = 0;
    } else if (slow) log.info({ event: "call.slow", ...line, reason: errorInfoReason(error) }, "slow call failed");
    else log.debug({ event: "call.failed", ...line, reason: errorInfoReason(error) }, "call failed");
  }

  /**
   * A database failure fails many calls in the same way. Callers do not get the cause, so it is logged, but not for each
   * call.
   */
  function databaseReportIsDue(): boolean {
    databaseFailures += 1;
    const now = performance.now();
    if (now - databaseReportedAt < DATABASE_REPORT_MS) return false;
    databaseReportedAt = now;
    return true;
  }

  return {
    of,
    get inProgress() {
      return inProgress;
    },
  };
}

class Record implements CallRecord {
  readonly listener: ListenerName;
  readonly #startedAt = performance.now();
  readonly #onBegin: (record: Record, ms: number) => void;
  readonly #onEnd: (record: Record, ms: number, error: ConnectError | undefined) => void;
  begun = false;
  traceId: string | undefined;
  #ended = false;

  constructor(
    listener: ListenerName,
    onBegin: (record: Record, ms: number) => void,
    onEnd: (record: Record, ms: number, error: ConnectError | undefined) => void,
  ) {
    this.listener = listener;
    this.#onBegin = onBegin;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#ended;
  }

  begin(): void {
    if (this.begun || this.#ended) return;
    this.begun = true;
    this.#onBegin(this, performance.now() - this.#startedAt);
  }

  end(error: ConnectError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(this, performance.now() - this.#startedAt, error);
  }
}

/** The series of one method. Those of successful calls are looked up once. */
class MethodSeries {
  readonly #metrics: Metrics;
  readonly #method: string;
  readonly #succeeded: Count;
  readonly #wellTimed: Readonly<{ [Listener in ListenerName]: Distribution }>;
  /** Of unary calls, under the former name. */
  readonly #unary: Distribution | undefined;

  constructor(metrics: Metrics, method: string, streaming: boolean) {
    this.#metrics = metrics;
    this.#method = method;
    this.#succeeded = this.#ends("OK");
    this.#wellTimed = { grpc: this.#times("OK", "grpc"), connect: this.#times("OK", "connect") };
    this.#unary = streaming ? undefined : metrics.histogram("harborforge_rpc_unary_seconds", { method });
  }

  began(listener: ListenerName, seconds: number): void {
    this.#wellTimed[listener].observe(seconds);
  }

  ended(listener: ListenerName, begun: boolean, seconds: number, error: ConnectError | undefined): void {
    this.#unary?.observe(seconds);
    if (error === undefined) {
      this.#succeeded.add();
      if (!begun) this.#wellTimed[listener].observe(seconds);
      return;
    }
    const code = codeText(error.code);
    this.#ends(code).add();
    if (!begun) this.#times(code, listener).observe(seconds);
  }

  #ends(code: string): Count {
    return this.#metrics.counter("harborforge_rpc_calls_total", { method: this.#method, code });
  }

  #times(code: string, listener: ListenerName): Distribution {
    return this.#metrics.histogram("harborforge_rpc_server_duration_seconds", { method: this.#method, code, listener });
  }
}

/** The limits of errors by their names in metrics. */
const LIMITS: Readonly<{ [limit: string]: LabelsOf<"harborforge_calls_limited_total">["limit"] }> = {
  requestsPerSecond: "requests_per_second",
  streamsPerCaller: "streams_per_caller",
  filterValuesPerCaller: "filter_values_per_caller",
  filterValues: "filter_values",
  changesPerAgent: "changes_per_agent",
  waitingReads: "waiting_reads",
  maxMessageValues: "max_message_values",
  maxLiveTokens: "max_live_tokens",
};

function countLimit(metrics: Metrics, error: ConnectError): void {
  const limit = exceededLimit(error);
  if (limit !== undefined)
    metrics.counter("harborforge_calls_limited_total", { limit: LIMITS[limit] ?? "other" }).add();
}

function isDatabaseFailure(error: ConnectError): boolean {
  return error.cause !== undefined && errorInfoReason(error) === reasonText("DATABASE_UNAVAILABLE");
}

/** The name of a method in log and metrics: `harborforge.agents.v1.AgentService/GetAgent`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** The name of a code in `google.rpc.Code`, such as `NOT_FOUND`. */
export function codeText(code: Code): string {
  return CodeSchema.value[code]?.name ?? "UNKNOWN";
}
