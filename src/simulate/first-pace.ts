import { CallError, type ConnectedClients } from "harborforge-agents-client";
import { pause } from "../../common/scheduling/timers.ts";
import { isCertificateFailure } from "../cli/call-failure.ts";
import { type FleetPace, readPace } from "./service-calls.ts";

const TRY_EVERY_MS = 500;
/** The codes of a service that is starting. */
const NOT_YET: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED"]);

export interface FirstPaceOptions {
  readonly caller: { readonly clients: Pick<ConnectedClients, "agents" | "users" | "reconnect"> };
  /** How long to wait for a service that does not answer yet, in milliseconds. 0: do not wait. */
  readonly waitMs: number;
  /** Called once if it waits. */
  onWaiting(error: CallError): void;
  readonly stop: AbortSignal;
}

/**
 * Reads the pace of heartbeats, which also shows that the service serves. Waits for a service that is starting, and tries
 * its addresses in turn.
 *
 * @throws CallError
 */
export async function firstPace({ caller, waitMs, onWaiting, stop }: FirstPaceOptions): Promise<FleetPace> {
  const deadline = performance.now() + waitMs;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await readPace(caller.clients, stop);
    } catch (error) {
      const starts = error instanceof CallError && NOT_YET.has(error.code) && !isCertificateFailure(error);
      if (!starts || stop.aborted || performance.now() >= deadline) throw error;
      if (attempt === 1) onWaiting(error);
      caller.clients.reconnect();
      await pause(TRY_EVERY_MS, stop);
    }
  }
}
