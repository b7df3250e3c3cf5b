import type { CliCommand, GatewayService, PluginApi } from "../src/gateway/plugin-api.ts";
import { register } from "../src/plugin.ts";

/** The plugin API of a gateway that tests control. */
export interface FakeGateway {
  readonly api: PluginApi;
  readonly service: GatewayService;
  readonly logged: readonly string[];
  config: object;
  emit(event: unknown): void;
  hook(name: string, event: unknown, context?: unknown): void;
  /** The result of the plugin's gateway method. */
  status(): unknown;
}

export function createFakeGateway(pluginConfig: object, agents: readonly string[] = ["main"]): FakeGateway {
  const listeners = new Set<(event: unknown) => void>();
  const hooks = new Map<string, (event: unknown, context: unknown) => void>();
  const logged: string[] = [];
  const services: GatewayService[] = [];
  let method: Parameters<NonNullable<PluginApi["registerGatewayMethod"]>>[1] | undefined;
  const write = (message: string): void => void logged.push(message);
  const gateway = {
    config: configOf(agents),
    logged,
    emit: (event: unknown) => {
      for (const listener of listeners) listener(event);
    },
    hook: (name: string, event: unknown, context: unknown = {}) => hooks.get(name)?.(event, context),
    status: () => {
      let answer: unknown;
      method?.({ respond: (_ok, payload) => (answer = payload) });
      return answer;
    },
  };
  const api: PluginApi = {
    pluginConfig,
    logger: { info: write, warn: write, error: write },
    runtime: {
      version: "2026.9.6",
      config: { current: () => gateway.config },
      events: {
        onAgentEvent: (listener) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
    },
    on: (hook, handler) => hooks.set(hook, handler),
    registerService: (service) => services.push(service),
    registerGatewayMethod: (_name, handler) => {
      method = handler;
    },
    registerCli: (registrar) => registrar({ program: command() }),
  };
  register(api);
  const [service] = services;
  if (service === undefined) throw new Error("the plugin registered no service");
  return Object.assign(gateway, { api, service });
}

export function configOf(agents: readonly string[]): object {
  return { agents: { entries: Object.fromEntries(agents.map((id) => [id, {}])) } };
}

function command(): CliCommand {
  const self: CliCommand = {
    command: () => self,
    description: () => self,
    option: () => self,
    action: () => self,
  };
  return self;
}
