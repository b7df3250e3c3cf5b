import { setTimeout } from "node:timers/promises";
import { createHeartbeatClient, type HeartbeatClient, type HeartbeatConnection } from "harborforge-agents-client";
import { field } from "../../../common/openclaw/values.ts";
import type { AgentActivity } from "./activity/agent-activity.ts";
import type { Refusal, Signal } from "./activity/signal.ts";
import { exhaustionOfAccounts, providersOf } from "./gateway/accounts.ts";
import { messageOf, PluginLog } from "./gateway/log.ts";
import type { PluginApi } from "./gateway/plugin-api.ts";
import { RUN_HOOKS, type RunHook, signalOfEvent, signalOfHook } from "./gateway/run-signals.ts";
import { GatewayAgents } from "./reporting/gateway-agents.ts";
import { readSettings, type Settings } from "./settings/settings.ts";
import { registerStatusCommand, STATUS_METHOD } from "./status/status-command.ts";
import { agentReport, connectionReport, type StatusReport } from "./status/status-report.ts";

declare const PLUGIN_VERSION: string | undefined;
const VERSION = typeof PLUGIN_VERSION === "string" ? PLUGIN_VERSION : "0.0.0-checkout";

const SERVICE_ID = "harborforge";
const TICK_MS = 1_000;
/** The gateway waits for `stop`, so it takes a second at most: so long for the goodbyes, and a little more for the end of the worker. */
const STOP_WITHIN_MS = 700;
const STOP_AT_MOST_MS = 950;
/** A gateway's event loop was blocked for 35 s at its start. */
const MAIN_THREAD_TIMEOUT_MS = 90_000;

/** A file of the bundle, or of the checkout. */
const WORKER = new URL(`./heartbeat-worker.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`, import.meta.url);

/** What one process of a gateway has once, however often OpenClaw loads the plugin: hooks of one copy serve the service of another. */
interface Shared {
  /** Takes what the hooks tell, while the service runs. */
  listen: ((signal: Signal, now: number) => void) | undefined;
  status: (() => StatusReport) | undefined;
  /** What the agents did when a copy of the plugin was replaced by the next one. */
  activities: ReadonlyMap<string, AgentActivity>;
  /** The gateway stops: goodbyes are due. A plugin that is only replaced keeps its leases for its successor. */
  isDraining: boolean;
}

const SHARED = Symbol.for(`openclaw-plugin-harborforge/${VERSION}`);

function shared(): Shared {
  const present = Reflect.get(globalThis, SHARED) as Shared | undefined;
  if (present !== undefined) return present;
  const made: Shared = { listen: undefined, status: undefined, activities: new Map(), isDraining: false };
  Reflect.set(globalThis, SHARED, made);
  return made;
}

/** Registers the plugin. OpenClaw calls this for each of its purposes: to serve, to inspect, for its command line. */
export function register(api: PluginApi): void {
  const log = new PluginLog(api.logger);
  log.safely("register", () => {
    registerHooks(api, log);
    let stop: (() => Promise<void>) | undefined;
    api.registerService({
      id: SERVICE_ID,
      start: () =>
        log.safely("start", () => {
          stop = start(api, log);
        }),
      stop: async () => {
        const ending = stop;
        stop = undefined;
        await ending?.().catch(() => undefined);
      },
    });
    api.registerGatewayMethod?.(STATUS_METHOD, ({ respond }) => respond(true, shared().status?.() ?? NOT_RUNNING), {
      scope: "operator.read",
    });
    api.registerCli?.(({ program }) => registerStatusCommand(program), {
      descriptors: [
        {
          name: "harborforge",
          description: "HarborForge Agents: the status of this gateway's agents",
          hasSubcommands: true,
        },
      ],
    });
  });
}

const NOT_RUNNING: StatusReport = {
  plugin: VERSION,
  claw: undefined,
  addresses: [],
  connection: { state: "not_configured" },
  problems: ["the plugin's service does not run. Read the gateway's log."],
  agents: [],
};

/** In every registration mode: in some, OpenClaw uses hooks that it registered for another purpose. */
function registerHooks(api: PluginApi, log: PluginLog): void {
  const on = (hook: string, take: (event: unknown, context: unknown) => void): void => {
    log.safely(`on ${hook}`, () => api.on(hook, (event, context) => log.safely(hook, () => take(event, context))));
  };
  const drain = (): void => {
    shared().isDraining = true;
  };
  on("gateway_start", (_event, context) => {
    const signal = field(context, "abortSignal");
    if (!(signal instanceof AbortSignal)) return;
    shared().isDraining = signal.aborted;
    signal.addEventListener("abort", drain, { once: true });
  });
  on("gateway_stop", drain);
  for (const hook of RUN_HOOKS) on(hook, (event, context) => takeHook(hook, event, context));
}

function takeHook(hook: RunHook, event: unknown, context: unknown): void {
  const { listen } = shared();
  if (listen === undefined) return;
  const now = Date.now();
  const signal = signalOfHook(hook, event, context, now);
  if (signal !== undefined) listen(signal, now);
}

/** Starts the reports. @returns a function that ends them within a second */
function start(api: PluginApi, log: PluginLog): () => Promise<void> {
  const settings = readSettings(api.pluginConfig);
  if ("problems" in settings) return refuse(settings.problems, log);
  let client: HeartbeatClient;
  try {
    client = connect(settings, log);
  } catch (error) {
    // An invalid address, for example.
    return refuse([messageOf(error)], log);
  }
  let connection: HeartbeatConnection | undefined;
  client.on("connection", (next) => {
    if (next.state !== connection?.state) tellConnection(next, settings, log);
    connection = next;
  });
  const { runtime } = api;
  const mine = shared();
  const agents = new GatewayAgents({
    settings,
    client,
    log,
    config: () => runtime.config.current(),
    accounts: (gatewayId, now) => accountsOf(api, gatewayId, now),
    earlier: mine.activities,
  });
  const listen = (signal: Signal, now: number): void => log.safely("signal", () => agents.apply(signal, now));
  mine.listen = listen;
  mine.activities = new Map();
  mine.status = () => ({
    plugin: VERSION,
    claw: settings.claw,
    addresses: settings.addresses,
    connection: connectionReport(connection),
    problems: [],
    agents: agents.all.map((agent) => agentReport(agent, Date.now())),
  });
  const unsubscribe = runtime.events.onAgentEvent((event) =>
    log.safely("event", () => {
      const now = Date.now();
      const signal = signalOfEvent(event, now);
      if (signal !== undefined) listen(signal, now);
    }),
  );
  const timer = setInterval(() => log.safely("tick", () => agents.tick(Date.now())), TICK_MS);
  timer.unref();
  agents.sync(Date.now());
  log.write("plugin.started", "the plugin reports the agents of this gateway", {
    version: VERSION,
    openclaw: runtime.version,
    claw: settings.claw,
    addresses: settings.addresses,
  });
  if (!mayReadConversations(runtime.config.current())) {
    log.write("hooks.missing", "without a permission, cold turns show as busy later", {
      action: "openclaw config set plugins.entries.harborforge.hooks.allowConversationAccess true",
    });
  }
  return async () => {
    clearInterval(timer);
    unsubscribe();
    // A successor may have started already.
    if (mine.listen === listen) mine.listen = undefined;
    const goodbye = mine.isDraining;
    if (!goodbye) mine.activities = agents.activities;
    const closed = client.close({ goodbye, withinMs: STOP_WITHIN_MS });
    await Promise.race([closed, setTimeout(STOP_AT_MOST_MS, undefined, { ref: false })]);
    log.write("plugin.stopped", goodbye ? "the agents said goodbye" : "the next process continues the leases");
  };
}

/** Reports nothing. */
function refuse(problems: readonly string[], log: PluginLog): () => Promise<void> {
  log.write("settings.invalid", "nothing is reported until the settings are valid", { problems });
  shared().status = () => ({ ...NOT_RUNNING, problems });
  return async () => undefined;
}

function mayReadConversations(config: unknown): boolean {
  const entry = field(field(field(config, "plugins"), "entries"), "harborforge");
  return field(field(entry, "hooks"), "allowConversationAccess") === true;
}

function connect({ claw, addresses, token, tls }: Settings, log: PluginLog): HeartbeatClient {
  const client = createHeartbeatClient({
    claw,
    addresses,
    ...(token === undefined ? {} : { token }),
    ...(tls === undefined ? {} : { tls }),
    worker: { url: WORKER, mainThreadTimeoutMs: MAIN_THREAD_TIMEOUT_MS },
    onListenerError: (error) => {
      log.write("plugin.failed", "the plugin failed; report it as a defect", { error: messageOf(error) });
    },
  });
  client.on("worker", (event) => {
    const error = event.state === "restarting" ? messageOf(event.error) : undefined;
    log.write("worker.changed", "the thread of the heartbeats changed its state", { state: event.state, error });
  });
  return client;
}

function tellConnection(connection: HeartbeatConnection, { addresses }: Settings, log: PluginLog): void {
  if (connection.state === "connected") {
    log.write("connection.made", "connected to the service", { addresses, leaseMs: connection.leaseMs });
    return;
  }
  const { error } = connection;
  // No error: the service asked the client to move to another replica.
  if (error === undefined) return;
  log.write("connection.lost", "no connection to the service; the plugin goes on trying", {
    addresses,
    code: error.code,
    reason: error.reason,
    error: error.message,
  });
}

/** The accounts of an agent, which the gateway keeps in its state. Undefined if this version of OpenClaw does not show them. */
function accountsOf({ runtime }: PluginApi, gatewayId: string, now: number): Refusal | undefined {
  try {
    const config = runtime.config.current();
    const folder = runtime.agent?.resolveAgentDir?.(config, gatewayId);
    if (typeof folder !== "string") return undefined;
    const store = runtime.modelAuth?.ensureAuthProfileStore?.(folder);
    return exhaustionOfAccounts(store, providersOf(config, gatewayId), now);
  } catch {
    return undefined;
  }
}
