import type { HeartbeatConnection } from "harborforge-agents-client";
import type { ShownStatus } from "../activity/agent-activity.ts";
import type { AgentReporter } from "../reporting/agent-reporter.ts";

/** What `openclaw harborforge status` shows. Instants are RFC 3339. */
export interface StatusReport {
  readonly plugin: string;
  readonly claw: string | undefined;
  readonly addresses: readonly string[];
  readonly connection: {
    readonly state: "connected" | "waiting" | "not_configured";
    readonly error?: string | undefined;
  };
  readonly problems: readonly string[];
  readonly agents: readonly AgentReport[];
}

export interface AgentReport {
  readonly gatewayId: string;
  readonly agentId: string;
  /** What the gateway shows. */
  readonly shown: string;
  /** What the service has. */
  readonly service: string;
  /** Whether heartbeats are sent for it, and why not. */
  readonly presence: string;
  readonly runs: number;
  /** The newest refusal by a provider. */
  readonly refusal: string | undefined;
  /** The newest rejection by the service. */
  readonly rejection: string | undefined;
}

export function agentReport({ gatewayId, handle, activity, lastRejection }: AgentReporter, now: number): AgentReport {
  const { lastRefusal } = activity;
  return {
    gatewayId,
    agentId: handle.agentId,
    shown: shownText(activity.statusAt(now)),
    service: handle.status ?? "unknown",
    presence: handle.presence,
    runs: activity.runsAt(now),
    refusal:
      lastRefusal === undefined
        ? undefined
        : `${lastRefusal.reason} at ${instant(lastRefusal.at)} (${lastRefusal.evidence})`,
    rejection: lastRejection === undefined ? undefined : `${lastRejection.reason}: ${lastRejection.message}`,
  };
}

export function connectionReport(connection: HeartbeatConnection | undefined): StatusReport["connection"] {
  if (connection?.state === "connected") return { state: "connected" };
  return { state: "waiting", error: connection?.error?.message };
}

function shownText(shown: ShownStatus): string {
  if (shown.status !== "exhausted") return shown.status;
  return `exhausted (${shown.reason}${shown.until === undefined ? "" : ` until ${instant(shown.until)}`})`;
}

function instant(ms: number): string {
  return new Date(ms).toISOString();
}
