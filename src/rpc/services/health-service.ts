import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../../gen/health/v1/health_pb.ts";
import type { Health } from "./health.ts";

/**
 * `grpc.health.v1.Health` for the server (the empty name) and each of `serviceNames`. They share one state, because all of them
 * need the same database. For an unknown name, Check fails with NOT_FOUND, and Watch sends SERVICE_UNKNOWN and stays open, as
 * the protocol demands.
 */
export function healthService(health: Health, serviceNames: readonly string[]): ServiceImpl<typeof HealthService> {
  const known = new Set(["", ...serviceNames]);
  const status = (): ServingStatus => (health.serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
  return {
    check: ({ service }) => {
      if (!known.has(service)) throw new ConnectError(`there is no service ${service}`, Code.NotFound);
      return { status: status() };
    },
    list: () => ({ statuses: Object.fromEntries([...known].map((name) => [name, { status: status() }])) }),
    async *watch({ service }, { signal }) {
      const current = (): ServingStatus => (known.has(service) ? status() : ServingStatus.SERVICE_UNKNOWN);
      let wake: (() => void) | undefined;
      const wakeUp = (): void => wake?.();
      const stopListening = health.onChange(wakeUp);
      signal.addEventListener("abort", wakeUp);
      try {
        let sent: ServingStatus | undefined;
        while (!signal.aborted) {
          const now = current();
          if (now !== sent) {
            sent = now;
            yield { status: now };
          } else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      } finally {
        stopListening();
        signal.removeEventListener("abort", wakeUp);
      }
    },
  };
}
