// The part of OpenClaw's plugin API that the plugin uses. The plugin imports nothing of OpenClaw when it loads: this API calls itself
// experimental, and a missing or renamed export would keep the whole plugin from loading. Values of the gateway are `unknown` until
// a function of `gateway/` has read them.

export interface GatewayLog {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export interface GatewayRuntime {
  /** The version of OpenClaw. */
  readonly version?: unknown;
  readonly config: { readonly current: () => unknown };
  readonly events: { readonly onAgentEvent: (listener: (event: unknown) => void) => () => void };
  readonly agent?: { readonly resolveAgentDir?: (config: unknown, agentId: string) => unknown };
  readonly modelAuth?: { readonly ensureAuthProfileStore?: (agentDir: string) => unknown };
  readonly subagent?: SubagentRuntime;
  readonly state?: { readonly openKeyedStore?: (options: KeyedStoreOptions) => KeyedStore };
}

/** Starts turns of agents, and waits for them. */
export interface SubagentRuntime {
  run(request: {
    readonly sessionKey: string;
    readonly message: string;
    readonly idempotencyKey: string;
    readonly deliver: boolean;
  }): Promise<unknown>;
  waitForRun(request: { readonly runId: string; readonly timeoutMs: number }): Promise<unknown>;
}

export interface KeyedStoreOptions {
  readonly namespace: string;
  readonly maxEntries: number;
  readonly defaultTtlMs: number;
}

/** A store of the gateway that survives its restarts. Values are JSON. */
export interface KeyedStore {
  registerIfAbsent(key: string, value: unknown): Promise<boolean>;
  register(key: string, value: unknown): Promise<void>;
  lookup(key: string): Promise<unknown>;
}

export interface GatewayService {
  readonly id: string;
  start(): void;
  stop(): Promise<void>;
}

/** Commander's command, as OpenClaw passes it. */
export interface CliCommand {
  command(name: string): CliCommand;
  description(text: string): CliCommand;
  option(flags: string, description: string): CliCommand;
  action(run: (options: unknown) => Promise<void>): CliCommand;
}

export interface PluginApi {
  readonly pluginConfig?: unknown;
  readonly logger: GatewayLog;
  readonly runtime: GatewayRuntime;
  on(hook: string, handler: (event: unknown, context: unknown) => void): void;
  registerService(service: GatewayService): void;
  registerGatewayMethod?(
    method: string,
    handler: (call: { readonly respond: (ok: boolean, payload: unknown) => void }) => void,
    options: { readonly scope: string },
  ): void;
  registerCli?(
    registrar: (context: { readonly program: CliCommand }) => void,
    options: {
      readonly descriptors: readonly {
        readonly name: string;
        readonly description: string;
        readonly hasSubcommands: boolean;
      }[];
    },
  ): void;
}
