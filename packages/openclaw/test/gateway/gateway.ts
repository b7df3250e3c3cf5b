import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { packPlugin } from "../../../../scripts/openclaw-plugin.ts";
import { execFile, spawn, temporaryFolder } from "../../../../test/support/owned-process.ts";
import { until } from "../../../../test/support/until.ts";

const run = promisify(execFile);

/** The version that the suite installs, and the documentation names. */
export const OPENCLAW_VERSION = "2026.9.6";
const TOKEN = "gateway-token";
/** Starts fail now and then on a loaded machine. */
const MOST_STARTS = 4;
const START_WITHIN_MS = 240_000;

/** An installed OpenClaw. */
export interface OpenClaw {
  /** Its program. */
  readonly program: string;
}

/**
 * Finds or installs OpenClaw outside of the checkout. `HARBORFORGE_TEST_OPENCLAW` names a folder whose `node_modules` has it.
 *
 * @returns the reason if that is not possible
 */
export async function findOpenClaw(): Promise<OpenClaw | string> {
  const folder = process.env.HARBORFORGE_TEST_OPENCLAW ?? (await temporaryFolder("openclaw-install"));
  const program = join(folder, "node_modules/openclaw/openclaw.mjs");
  if (!existsSync(program)) {
    try {
      await writeFile(join(folder, "package.json"), "{}");
      const wanted = [`openclaw@${OPENCLAW_VERSION}`, "--save-exact", "--ignore-scripts", "--no-audit", "--no-fund"];
      await run("npm", ["install", "--prefix", folder, ...wanted], { timeout: 600_000 });
    } catch (error) {
      return `OpenClaw ${OPENCLAW_VERSION} could not be installed: ${error instanceof Error ? error.message : error}`;
    }
  }
  const { stdout } = await run(process.execPath, [program, "--version"]);
  return stdout.includes(OPENCLAW_VERSION)
    ? { program }
    : `OpenClaw ${OPENCLAW_VERSION} is needed, ${folder} has ${stdout.trim()}`;
}

export interface Model {
  readonly primary: string;
  readonly fallbacks?: readonly string[];
}

export interface GatewayOptions {
  readonly openclaw: OpenClaw;
  /** The URL of the model provider. */
  readonly providerUrl: string;
  /** By agent, `provider/model`. */
  readonly agents: Readonly<Record<string, Model>>;
  /** The plugin's settings. */
  readonly config: object;
  /** Other modules that the gateway's process loads first. */
  readonly imports?: readonly string[];
}

/** A folder for a gateway with the plugin installed. Processes are started in it one after the other. */
export interface GatewayStage extends AsyncDisposable {
  readonly port: number;
  /** Everything that gateways printed. */
  readonly output: string;
  start(): Promise<GatewayProcess>;
  /** Changes the configuration, as a person with an editor does. */
  configure(agents: Readonly<Record<string, Model>>): Promise<void>;
  /** Runs a command of OpenClaw against the gateway. */
  command(...args: readonly string[]): Promise<string>;
}

export interface GatewayProcess {
  readonly pid: number;
  /** Asks an agent, in a new session or that of a key, and waits for its answer. @returns the answer or the error as text */
  turn(agentId: string, message: string, sessionKey?: string): Promise<string>;
  signal(signal: NodeJS.Signals): void;
  readonly ended: Promise<unknown>;
}

export async function openGatewayStage(options: GatewayOptions): Promise<GatewayStage> {
  const path = await temporaryFolder("gateway");
  const port = await freePort();
  const env = {
    PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
    HOME: path,
    OPENCLAW_HOME: join(path, "home"),
    OPENCLAW_STATE_DIR: join(path, "state"),
    OPENCLAW_CONFIG_PATH: join(path, "openclaw.json"),
    TMPDIR: path,
    HARBORFORGE_TOKEN: "unused",
  };
  for (const name of ["home", "state"]) await mkdir(join(path, name));
  const { program } = options.openclaw;
  let output = "";
  const processes: { readonly kill: (signal: NodeJS.Signals) => boolean; readonly ended: Promise<unknown> }[] = [];
  const configure = (agents: GatewayOptions["agents"]): Promise<void> =>
    writeFile(env.OPENCLAW_CONFIG_PATH, JSON.stringify(configuration({ ...options, agents }, path, port), null, 2));
  const command = async (...args: readonly string[]): Promise<string> => {
    const { stdout } = await run(process.execPath, [program, ...args], { env, cwd: path, timeout: 240_000 });
    return stdout;
  };
  await configure(options.agents);
  const tarball = await packPlugin(path);
  await command("plugins", "install", `npm-pack:${tarball}`, "--force", "--accept-capabilities");
  // The installer writes to the configuration.
  await configure(options.agents);

  const launch = async (): Promise<GatewayProcess> => {
    const imports = (options.imports ?? []).flatMap((module) => ["--import", module]);
    const child = spawn(process.execPath, [...imports, program, "gateway", "run", "--verbose"], { env, cwd: path });
    const from = output.length;
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => (output += String(chunk)));
    let isOver = false;
    const ended = once(child, "exit").finally(() => {
      isOver = true;
    });
    processes.push({ kill: (signal) => child.kill(signal), ended });
    await until(
      "the plugin starts",
      () => isOver || output.slice(from).includes("plugin.started") || output.slice(from).includes("settings.invalid"),
      START_WITHIN_MS,
    );
    if (isOver || child.pid === undefined) throw new Error(`the gateway ended:\n${output.slice(from).slice(-2_000)}`);
    return { pid: child.pid, turn: (...args) => turn(port, ...args), signal: (signal) => child.kill(signal), ended };
  };
  return {
    port,
    get output() {
      return output;
    },
    async start() {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await launch();
        } catch (error) {
          const last = processes.at(-1);
          last?.kill("SIGKILL");
          await last?.ended;
          if (attempt === MOST_STARTS) throw error;
        }
      }
    },
    configure,
    command,
    async [Symbol.asyncDispose]() {
      for (const one of processes) one.kill("SIGKILL");
      await Promise.all(processes.map(({ ended }) => ended));
      await rm(path, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A cold turn takes half a minute on a loaded machine. */
const TURN_WITHIN_MS = 150_000;

async function turn(port: number, agentId: string, message: string, sessionKey?: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: "POST",
    signal: AbortSignal.timeout(TURN_WITHIN_MS),
    headers: {
      authorization: `Bearer ${TOKEN}`,
      "content-type": "application/json",
      "x-openclaw-agent-id": agentId,
      ...(sessionKey === undefined ? {} : { "x-openclaw-session-key": sessionKey }),
    },
    body: JSON.stringify({ model: `openclaw/${agentId}`, messages: [{ role: "user", content: message }] }),
  });
  return await response.text();
}

function configuration({ providerUrl, agents, config }: GatewayOptions, path: string, port: number): object {
  const models = Object.values(agents).flatMap(({ primary, fallbacks = [] }) => [primary, ...fallbacks]);
  const byProvider = Object.groupBy(models, (name) => name.slice(0, name.indexOf("/")));
  const provider = (names: readonly string[] = []): object => ({
    baseUrl: providerUrl,
    apiKey: "x",
    api: "openai-completions",
    models: [...new Set(names)].map((name) => ({
      id: name.slice(name.indexOf("/") + 1),
      name,
      contextWindow: 128_000,
      maxTokens: 4_096,
      input: ["text"],
      reasoning: false,
      cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
    })),
  });
  const entry = ([id, model]: [string, Model]) => [id, { workspace: join(path, "workspaces", id), model }] as const;
  const first = Object.keys(agents)[0] ?? "main";
  return {
    gateway: {
      mode: "local",
      port,
      bind: "loopback",
      auth: { mode: "token", token: TOKEN },
      controlUi: { enabled: false },
      http: { endpoints: { chatCompletions: { enabled: true } } },
    },
    discovery: { mdns: { mode: "off" } },
    update: { checkOnStart: false },
    agents: {
      ownership: "explicit",
      defaults: { heartbeat: { every: "0m" }, skipBootstrap: true, systemAgent: { agentId: first } },
      entries: Object.fromEntries(Object.entries(agents).map(entry)),
    },
    // Models see tools by their names.
    tools: { toolSearch: false },
    models: {
      mode: "replace",
      providers: Object.fromEntries(Object.entries(byProvider).map(([name, all]) => [name, provider(all)])),
    },
    plugins: {
      allow: ["harborforge"],
      entries: { harborforge: { enabled: true, hooks: { allowConversationAccess: true }, config } },
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}
