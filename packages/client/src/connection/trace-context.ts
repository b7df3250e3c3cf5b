import type { Interceptor } from "@connectrpc/connect";

/**
 * Where `@opentelemetry/api` 1.x keeps what a host has registered (its `internal/global-utils`). Without it, loading the API would
 * cost time and change nothing.
 */
const REGISTERED = Symbol.for("opentelemetry.js.api.1");

/** The host's OpenTelemetry. Undefined: not loaded yet. */
let api: Promise<typeof import("@opentelemetry/api") | undefined> | undefined;

/** Sends the trace that the caller is in along with each call, as the host's propagator writes it: `traceparent`. */
export const traceContext: Interceptor = (next) => async (request) => {
  if (!(REGISTERED in globalThis)) return await next(request);
  api ??= import("@opentelemetry/api").catch(() => undefined);
  const loaded = await api;
  loaded?.propagation.inject(loaded.context.active(), request.header, {
    set: (header, name, value) => header.set(name, value),
  });
  return await next(request);
};
