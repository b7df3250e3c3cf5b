import type { Interceptor } from "@connectrpc/connect";

/** The host's OpenTelemetry, if it has `@opentelemetry/api`. Only a host that installs it pays for it. */
const api = import("@opentelemetry/api").catch(() => undefined);

/** Sends the trace that the caller is in along with each call, as the host's propagator writes it: `traceparent`. */
export const traceContext: Interceptor = (next) => async (request) => {
  const loaded = await api;
  loaded?.propagation.inject(loaded.context.active(), request.header, {
    set: (header, name, value) => header.set(name, value),
  });
  return await next(request);
};
