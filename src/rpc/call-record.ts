import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { CodeSchema } from "../../gen/google/rpc/code_pb.ts";
import { errorInfoReason } from "./errors.ts";

/** One call's entry in log and metrics. */
export interface CallRecord {
  readonly ended: boolean;
  /** Notes the call's end, once; without an error it went well. */
  end(error: ConnectError | undefined): void;
}

export interface CallRecorder {
  start(method: DescMethod): CallRecord;
  readonly inProgress: number;
}

/**
 * Notes calls: how many by method and code, how long unary ones take, how many streams are open. A line is logged for a
 * call that failed (debug; error where the fault is ours, with its cause) and for a slow unary one (info). Payloads are
 * never logged. Labels come from descriptors and codes alone, so their number is bounded.
 */
export function createCallRecorder(log: Logger, metrics: Registry, slowMs: number): CallRecorder {
  const registers = [metrics];
  const calls = new Counter({
    name: "harborforge_rpc_calls_total",
    help: "Calls that ended, by method and gRPC status code.",
    labelNames: ["method", "code"],
    registers,
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

  function start(method: DescMethod): CallRecord {
    const name = methodName(method);
    const streaming = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    const startedAt = performance.now();
    let ended = false;
    inProgress += 1;
    if (streaming) openStreams.inc({ method: name });
    return {
      get ended() {
        return ended;
      },
      end(error) {
        if (ended) return;
        ended = true;
        inProgress -= 1;
        const ms = performance.now() - startedAt;
        if (streaming) openStreams.dec({ method: name });
        else seconds.observe({ method: name }, ms / 1_000);
        calls.inc({ method: name, code: error === undefined ? "OK" : codeText(error.code) });
        report(name, ms, streaming, error);
      },
    };
  }

  function report(method: string, ms: number, streaming: boolean, error: ConnectError | undefined): void {
    const slow = !streaming && ms >= slowMs;
    if (error === undefined && !slow) return;
    const line = { method, ms: Math.round(ms), ...(error === undefined ? {} : { code: codeText(error.code) }) };
    if (error?.code === Code.Internal) log.error({ ...line, err: error.cause ?? error }, "call failed by our fault");
    else if (error === undefined) log.info(line, "slow call");
    else if (slow) log.info({ ...line, reason: errorInfoReason(error) }, "slow call failed");
    else log.debug({ ...line, reason: errorInfoReason(error) }, "call failed");
  }

  return {
    start,
    get inProgress() {
      return inProgress;
    },
  };
}

/** A method as log and metrics name it: `harborforge.agents.v1.AgentService/GetAgent`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function codeText(code: Code): string {
  return CodeSchema.value[code]?.name ?? "UNKNOWN";
}
