import type { DescMethod } from "@bufbuild/protobuf";
import type { Code, ConnectError } from "@connectrpc/connect";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { Logger } from "../../../common/logging/logger.ts";
import { CodeSchema } from "../../../gen/google/rpc/code_pb.ts";
import { errorInfoReason, isDefect, reasonText } from "../errors/error-table.ts";

/** The least time between two logged causes of database failures, in milliseconds. */
const DATABASE_REPORT_MS = 10_000;

/** The entry of one call in log and metrics. */
export interface CallRecord {
  readonly ended: boolean;
  /** Records the end of the call, once. Undefined: the call succeeded. */
  end(error: ConnectError | undefined): void;
}

/** Records the calls of one method. */
export interface MethodRecorder {
  start(): CallRecord;
}

export interface CallRecorder {
  of(method: DescMethod): MethodRecorder;
  readonly inProgress: number;
}

/**
 * Records calls: their number by method and code, the duration of unary ones, the number of open streams. It logs failed
 * calls (debug; error with the cause for internal errors; a warning with the cause at times for database errors) and slow
 * unary calls (info). Payloads are never logged. Labels come only from descriptors and codes, so their number is bounded.
 */
export function createCallRecorder(log: Logger, metrics: Registry, slowMs: number): CallRecorder {
  const registers = [metrics];
  const wellEnded: { readonly method: string; calls: number }[] = [];
  const calls = new Counter({
    name: "harborforge_rpc_calls_total",
    help: "Calls that ended, by method and gRPC status code.",
    labelNames: ["method", "code"],
    registers,
    // Counting by labels takes longer than many steps of a call. So successful calls are counted apart.
    collect() {
      for (const well of wellEnded) {
        if (well.calls > 0) this.inc({ method: well.method, code: "OK" }, well.calls);
        well.calls = 0;
      }
    },
  });
  const seconds = new Histogram({
    name: "harborforge_rpc_unary_seconds",
    help: "Time from a unary call's arrival at its handler to its answer, in seconds.",
    labelNames: ["method"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const openStreams = new Gauge({
    name: "harborforge_rpc_open_streams",
    help: "Streams that are open, by method.",
    labelNames: ["method"],
    registers,
  });
  let inProgress = 0;
  let databaseReportedAt = Number.NEGATIVE_INFINITY;
  let databaseFailures = 0;

  function of(method: DescMethod): MethodRecorder {
    const name = methodName(method);
    const streaming = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    const took = seconds.labels({ method: name });
    const open = openStreams.labels({ method: name });
    const well = { method: name, calls: 0 };
    wellEnded.push(well);
    const ended = (ms: number, error: ConnectError | undefined): void => {
      inProgress -= 1;
      if (streaming) open.dec();
      else took.observe(ms / 1_000);
      if (error === undefined) well.calls += 1;
      else calls.inc({ method: name, code: codeText(error.code) });
      report(name, ms, streaming, error);
    };
    return {
      start: () => {
        inProgress += 1;
        if (streaming) open.inc();
        return new Record(ended);
      },
    };
  }

  function report(method: string, ms: number, streaming: boolean, error: ConnectError | undefined): void {
    const slow = !streaming && ms >= slowMs;
    if (error === undefined && !slow) return;
    const line = { method, ms: Math.round(ms), ...(error === undefined ? {} : { code: codeText(error.code) }) };
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
  readonly #startedAt = performance.now();
  readonly #onEnd: (ms: number, error: ConnectError | undefined) => void;
  #ended = false;

  constructor(onEnd: (ms: number, error: ConnectError | undefined) => void) {
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#ended;
  }

  end(error: ConnectError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(performance.now() - this.#startedAt, error);
  }
}

function isDatabaseFailure(error: ConnectError): boolean {
  return error.cause !== undefined && errorInfoReason(error) === reasonText("DATABASE_UNAVAILABLE");
}

/** The name of a method in log and metrics: `harborforge.agents.v1.AgentService/GetAgent`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function codeText(code: Code): string {
  return CodeSchema.value[code]?.name ?? "UNKNOWN";
}
