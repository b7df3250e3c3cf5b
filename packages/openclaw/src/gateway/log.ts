import type { GatewayLog } from "./plugin-api.ts";

/** The events of the plugin's log lines, with their levels. The names are stable. */
export const LEVELS = {
  "plugin.started": "info",
  "plugin.stopped": "info",
  "connection.made": "info",
  "agents.changed": "info",
  "run.silent": "warn",
  "connection.lost": "warn",
  "worker.changed": "warn",
  "agent.superseded": "warn",
  "agent.report_rejected": "warn",
  "agents.unknown": "error",
  "agents.rejected": "error",
  "settings.invalid": "error",
  "hooks.missing": "warn",
  "plugin.failed": "error",
} as const;

export type LogEvent = keyof typeof LEVELS;

/** Writes lines such as `connection.made: connected to the service claw="claw-1"`. */
export class PluginLog {
  readonly #log: GatewayLog;

  constructor(log: GatewayLog) {
    this.#log = log;
  }

  /** @param message at most ten words. Facts are JSON, so that text of others cannot make lines of its own */
  write(event: LogEvent, message: string, facts: Readonly<Record<string, unknown>> = {}): void {
    try {
      const pairs = Object.entries(facts).filter(([, value]) => value !== undefined);
      this.#log[LEVELS[event]](
        [`${event}: ${message}`, ...pairs.map(([name, value]) => `${name}=${json(value)}`)].join(" "),
      );
    } catch {
      // A log that fails must not reach the gateway.
    }
  }

  /** Runs a function of the plugin for the gateway. What it throws becomes a log line. */
  safely(what: string, run: () => void): void {
    try {
      run();
    } catch (error) {
      this.write("plugin.failed", "the plugin failed; report it as a defect", { what, error: messageOf(error) });
    }
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function json(value: unknown): string {
  return JSON.stringify(value) ?? "null";
}
