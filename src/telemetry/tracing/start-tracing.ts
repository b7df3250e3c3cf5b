import { setTimeout as sleep } from "node:timers/promises";
import { DiagLogLevel, diag } from "@opentelemetry/api";
import type { Logger } from "../../../common/logging/logger.ts";
import { Tracing } from "./tracing.ts";

/** How long the last export may take, in milliseconds. */
const STOP_MS = 2_000;
/** One line in this time about exports that fail, in milliseconds. */
const REPORT_MS = 60_000;

/** Tracing that is on. */
export interface StartedTracing {
  readonly tracing: Tracing;
  /** Exports what is left, within two seconds. */
  stop(): Promise<void>;
}

/**
 * Starts OpenTelemetry's SDK if its environment variables ask for traces. Otherwise it loads nothing. The SDK reads the standard
 * variables by itself: exporter, endpoint, headers, protocol, sampler, limits, resource.
 */
export async function startTracing(
  env: Readonly<Record<string, string | undefined>>,
  { version }: { readonly version: string },
  log: Pick<Logger, "info" | "warn">,
): Promise<StartedTracing | undefined> {
  if (!isWanted(env)) return undefined;
  const { NodeSDK, resources } = await import("@opentelemetry/sdk-node");
  const sdk = new NodeSDK({
    serviceName: env.OTEL_SERVICE_NAME || "harborforge-agents",
    resource: resources.resourceFromAttributes({ "service.version": version }),
    // Metrics are for Prometheus, the log goes to standard error.
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [],
  });
  diag.setLogger(reporter(log), { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true });
  sdk.start();
  log.info({ event: "tracing.started" }, "traces are exported");
  return {
    tracing: new Tracing(version),
    stop: async () => {
      const waited = new AbortController();
      // A collector that does not answer must not delay the stop.
      await Promise.race([
        sdk.shutdown().catch(() => undefined),
        sleep(STOP_MS, undefined, { signal: waited.signal }).catch(() => undefined),
      ]);
      waited.abort();
      diag.disable();
    },
  };
}

function isWanted(env: Readonly<Record<string, string | undefined>>): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === "true") return false;
  const exporter = env.OTEL_TRACES_EXPORTER?.trim() ?? "";
  if (exporter === "none") return false;
  return [exporter, env.OTEL_EXPORTER_OTLP_ENDPOINT, env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT].some(
    (value) => value !== undefined && value !== "",
  );
}

/** The SDK's messages may quote its headers, with their credentials. The line has only the code of the error. */
function reporter(log: Pick<Logger, "warn">) {
  let reportedAt = Number.NEGATIVE_INFINITY;
  let failures = 0;
  const error = (message: string): void => {
    failures += 1;
    const now = performance.now();
    if (now - reportedAt < REPORT_MS) return;
    reportedAt = now;
    const [, code = "none"] = /"code":"(\w{1,40})"/.exec(message) ?? [];
    log.warn({ event: "tracing.export_failed", code, failures }, "traces cannot be exported");
    failures = 0;
  };
  const ignore = (): void => undefined;
  return { error, warn: ignore, info: ignore, debug: ignore, verbose: ignore };
}
