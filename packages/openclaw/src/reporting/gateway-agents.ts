import type { HeartbeatClient, ReportError } from "harborforge-agents-client";
import { agentIdIn, agentIdsOf } from "../../../../common/openclaw/gateway-agents.ts";
import type { AgentActivity } from "../activity/agent-activity.ts";
import type { Signal } from "../activity/signal.ts";
import { messageOf, type PluginLog } from "../gateway/log.ts";
import type { Settings } from "../settings/settings.ts";
import { AgentReporter, type ReporterContext } from "./agent-reporter.ts";

export interface GatewayAgentsOptions {
  readonly settings: Settings;
  readonly client: HeartbeatClient;
  readonly log: PluginLog;
  /** The gateway's configuration as it is now. */
  readonly config: () => unknown;
  readonly accounts: ReporterContext["accounts"];
  /** What an earlier copy of the plugin saw in this process, by the gateway's ids. */
  readonly earlier: ReadonlyMap<string, AgentActivity>;
}

/** Rejections of a start arrive together, and are one log line. */
const GATHER_MS = 2_000;

/** The agents of the gateway's configuration, each with its reporter. */
export class GatewayAgents {
  readonly #options: GatewayAgentsOptions;
  readonly #reporters = new Map<string, AgentReporter>();
  #config: unknown;
  /** Agents that the service rejects, by its reason; told once. */
  readonly #rejected = new Map<string, ReportError>();
  #rejectionsDueAt: number | undefined;

  constructor(options: GatewayAgentsOptions) {
    this.#options = options;
  }

  /** For the next copy of the plugin. */
  get activities(): ReadonlyMap<string, AgentActivity> {
    return new Map([...this.#reporters].map(([id, { activity }]) => [id, activity]));
  }

  get all(): readonly AgentReporter[] {
    return [...this.#reporters.values()];
  }

  reporterOf(gatewayId: string): AgentReporter | undefined {
    const present = this.#reporters.get(gatewayId);
    if (present !== undefined) return present;
    // A reload may have added it since the last look.
    this.sync(Date.now());
    return this.#reporters.get(gatewayId);
  }

  apply(signal: Signal, now: number): void {
    this.reporterOf(signal.agentId)?.apply(signal, now);
  }

  /** Each second: reloads of the configuration, and what time alone changes. */
  tick(now: number): void {
    this.sync(now);
    for (const reporter of this.#reporters.values()) reporter.update(now);
    if (this.#rejectionsDueAt !== undefined && now >= this.#rejectionsDueAt) this.#tellRejections();
  }

  /** Adds and removes agents as the configuration says. */
  sync(now: number): void {
    const config = this.#options.config();
    // The gateway replaces the object when it reloads.
    if (config === this.#config) return;
    this.#config = config;
    const wanted = this.#wantedIn(config);
    const removed = [...this.#reporters.keys()].filter((id) => !wanted.has(id));
    const added = [...wanted].filter(([id]) => !this.#reporters.has(id));
    for (const id of removed) {
      this.#reporters.get(id)?.leave();
      this.#reporters.delete(id);
    }
    for (const [gatewayId, agentId] of added) this.#add(gatewayId, agentId, now);
    if (added.length + removed.length === 0) return;
    const names = added.map(([id, agentId]) => `${id} → ${agentId}`);
    this.#options.log.write("agents.changed", "reporting the agents of the gateway", { added: names, removed });
  }

  /** Ids of the service by ids of the gateway. Two agents cannot have one: the first one keeps it. */
  #wantedIn(config: unknown): ReadonlyMap<string, string> {
    const { settings, log } = this.#options;
    const wanted = new Map<string, string>();
    const taken = new Map<string, string>();
    for (const gatewayId of agentIdsOf(config)) {
      const agentId = agentIdIn(settings.claw, settings.agents, gatewayId);
      if (agentId === undefined) continue;
      const other = taken.get(agentId);
      if (other === undefined) wanted.set(gatewayId, agentId);
      else log.write("settings.invalid", "two agents have one id", { agentId, reported: other, ignored: gatewayId });
      taken.set(agentId, other ?? gatewayId);
    }
    return wanted;
  }

  #add(gatewayId: string, agentId: string, now: number): void {
    const { settings, client, log, accounts, earlier } = this.#options;
    try {
      const reporter = new AgentReporter(gatewayId, client.agent(agentId), {
        limits: settings,
        log,
        accounts,
        earlier: earlier.get(gatewayId),
        onRejected: (rejected, error) => this.#onRejected(rejected, error),
      });
      this.#reporters.set(gatewayId, reporter);
      reporter.update(now);
    } catch (error) {
      // Too long, for example.
      log.write("settings.invalid", "an agent's id is invalid", { agentId, error: messageOf(error) });
    }
  }

  #onRejected({ handle }: AgentReporter, error: ReportError): void {
    if (this.#rejected.get(handle.agentId)?.reason === error.reason) return;
    this.#rejected.set(handle.agentId, error);
    this.#rejectionsDueAt ??= Date.now() + GATHER_MS;
  }

  #tellRejections(): void {
    this.#rejectionsDueAt = undefined;
    const { log, settings } = this.#options;
    const byReason = Map.groupBy(this.#rejected, ([, { reason }]) => reason);
    for (const [reason, rejections] of byReason) {
      const agents = rejections.map(([agentId]) => agentId);
      if (reason === "AGENT_NOT_FOUND") {
        log.write("agents.unknown", "the service does not know these agents", {
          agents,
          action: `harborforge-agents agents enrol --claw ${settings.claw} --from openclaw.json`,
        });
        continue;
      }
      log.write("agents.rejected", "the service rejects these agents", {
        agents,
        reason,
        error: rejections[0]?.[1].message,
      });
    }
  }
}
