import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { CodeSchema } from "../../../gen/google/rpc/code_pb.ts";
import { errorInfoReason, reasonText } from "../errors/errors.ts";

/** How often the cause of calls that fail at the database is logged at most, in milliseconds. */
const DATABASE_REPORT_MS = 10_000;

/** One call's entry in log and metrics. */
export interface CallRecord {
  readonly ended: boolean;
  /** Notes the call's end, once; without an error it went well. */
  end(error: ConnectError | undefined): void;
}

/** Notes the calls of one method. */
export interface MethodRecorder {
  start(): CallRecord;
}

export interface CallRecorder {
  of(method: DescMethod): MethodRecorder;
  readonly inProgress: number;
}

/**
 * Notes calls: how many by method and code, how long unary ones take, how many streams are open. A line is logged for a
 * call that failed (debug; error where the fault is ours, with its cause; a warning now and then where it is the
 * database's, with its cause) and for a slow unary one (info). Payloads are never logged. Labels come from descriptors and
 * codes alone, so their number is bounded.
 */
export function createCallRecorder(log: Logger, metrics: Registry, slowMs: number): CallRecorder {
  const registers = [metrics];
  const wellEnded: { readonly method: string; calls: number }[] = [];
  const calls = new Counter({
    name: "harborforge_rpc_calls_total",
    help: "Calls that ended, by method and gRPC status code.",
    labelNames: ["method", "code"],
    registers,
    // Counting by labels takes longer than many a step of a call, so what usually happens is counted by itself.
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
    if (error?.code === Code.Internal) log.error({ ...line, err: error.cause ?? error }, "call failed by our fault");
    else if (error === undefined) log.info(line, "slow call");
    else if (isDatabaseFailure(error) && databaseReportIsDue()) {
      const facts = { ...line, reason: errorInfoReason(error), err: error.cause, failures: databaseFailures };
      log.warn(facts, "calls fail at the database");
      databaseFailures = 0;
    } else if (slow) log.info({ ...line, reason: errorInfoReason(error) }, "slow call failed");
    else log.debug({ ...line, reason: errorInfoReason(error) }, "call failed");
  }

  /** It fails many calls alike: why, which no caller is told, is logged now and then. */
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

/** A method as log and metrics name it: `harborforge.agents.v1.AgentService/GetAgent`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function codeText(code: Code): string {
  return CodeSchema.value[code]?.name ?? "UNKNOWN";
}
