import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { delimiter, dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { createAgentCache } from "harborforge-agents-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { expectCompletion, hasShell, SHELLS } from "../support/completing-shell.ts";
import { type RunnableBlock, runnableBlocks } from "../support/fenced-blocks.ts";
import { nodeOfMajor } from "../support/other-node.ts";
import { execFile, temporaryFolder } from "../support/owned-process.ts";
import { manifestOf, openPackedProject, type PackedProject } from "../support/packed-project.ts";
import { checkout, openStage, type RunOptions, type Stage, says, serves } from "../support/program.ts";
import { addressed } from "../support/run-block.ts";
import { unique, useService } from "../support/service.ts";

const run = promisify(execFile);
const service = useService();
const SERVICE = "harborforge-agents";
const CLIENT = "harborforge-agents-client";
const EMBEDDED = "@harborforge/embedded-postgres";
const BRIDGE = "@harborforge/connect-grpc-js";
let project: PackedProject;

beforeAll(async () => {
  project = await openPackedProject();
}, 180_000);
afterAll(() => project[Symbol.asyncDispose]());

/** Beats in this thread and in a worker, watches, and does so beside programs that still import the former name. */
const CLIENT_PROGRAM = `
import { createAgentCache, createHeartbeatClient, createServiceClients, exhaustionFromError } from "${CLIENT}";
import { watchAgents } from "${CLIENT}/watch";
import { createAgentCache as formerCache } from "${SERVICE}/client";
import { watchAgents as formerlyWatched } from "${SERVICE}/client/watch";

const [address, agentId] = process.argv.slice(2);
const service = createServiceClients({ address });
await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
const cache = createAgentCache({ address, filter: { agentIds: [agentId] } });
await cache.ready;
const former = formerCache({ address, filter: { agentIds: [agentId] } });
await former.ready;
const instants = [cache.get(agentId).createdAt instanceof Date, typeof former.get(agentId).createdAt];
await former.close();
const claw = createHeartbeatClient({ address, claw: "claw-1" });
const agent = claw.agent(agentId);
const outcomes = [await agent.busy(), agent.status];
await agent.exhausted(exhaustionFromError({ status: 429, headers: new Headers({ "retry-after": "60" }) }));
const seen = await cache.waitFor(({ get }) => get(agentId).status === "exhausted" && get(agentId));
await claw.close();
await cache.waitFor(({ get }) => get(agentId).status === "offline");
const threaded = createHeartbeatClient({ address, claw: "claw-1", worker: true });
const problems = [];
threaded.on("worker", ({ state }) => problems.push(state));
outcomes.push(await threaded.agent(agentId).busy(), ...problems);
await threaded.close();
await cache.close();
service.close();
const functions = [typeof watchAgents, typeof formerlyWatched];
console.log(JSON.stringify({ outcomes, reason: seen.exhaustion.reason, instants, functions }));
`;

const BRIDGE_PROGRAM = `
import { createClient, createServiceImplSpec } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { createGrpcBridge } from "${BRIDGE}";
import { Health } from "./node_modules/${SERVICE}/gen/health/v1/health_pb.js";

const bridge = createGrpcBridge([createServiceImplSpec(Health, { check: () => ({ status: 1 }) })]);
const server = new Server({ interceptors: [bridge.interceptor] });
bridge.register(server);
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), async (error, port) => {
  const transport = createGrpcTransport({ baseUrl: "http://127.0.0.1:" + port });
  const { status } = await createClient(Health, transport).check({});
  console.log(JSON.stringify({ error, status }));
  process.exit();
});
`;

const BROWSER_TYPES = `
import { createAgentCache, watchAgents, type WatchEvent } from "${CLIENT}/watch";
import type { Transport } from "@connectrpc/connect";
declare const transport: Transport;
const found: bigint = await createAgentCache({ transport }).waitFor(({ get }) => get("a")?.revision);
for await (const event of watchAgents({ transport, from: found, token: "secret" })) {
  const one: WatchEvent = event;
  void one;
}
// @ts-expect-error there is no transport
watchAgents({ from: found });
`;
const CONTRACT_TYPES = `
import { createServiceClients, CallError, ERROR_REASONS, agentView, type ErrorReason } from "${CLIENT}";
import { AgentService, AgentStatus, type Agent } from "${CLIENT}/contract";
const service = createServiceClients({ address: "a:1", timeoutMs: 1 });
const claim = { agentId: "a", status: AgentStatus.ON_CALL, expectedRevision: 1n };
const message: Agent | undefined = (await service.agents.updateAgentStatus(claim)).agent;
const since: Date | undefined = message && agentView(message).suspectSince;
const reason: ErrorReason = ERROR_REASONS[0];
const error = new CallError("no", { code: "ABORTED", reason });
// @ts-expect-error there is no such reason
if (error.reason === 1) throw since;
void AgentService.method.watchAgents;
`;
const nodeTypes = (entry: string) => `
import { createHeartbeatClient, exhaustionFromError, ReportError, type AgentHandle } from "${entry}";
await using claw = createHeartbeatClient({ addresses: ["a:1", "b:1"], token: async () => "secret", claw: "c" });
const agent: AgentHandle = claw.agent("a");
agent.on("status", ({ status, exhaustion }) => [status.length, exhaustion?.recoveryAt]);
const outcome: "applied" | "overtaken" = await agent.busy({ signal: AbortSignal.timeout(1) });
const exhaustion = exhaustionFromError(new Error(outcome));
if (exhaustion !== undefined) await agent.exhausted(exhaustion);
// @ts-expect-error there is no such reason
await agent.exhausted({ reason: "tired" });
void ReportError;
`;

const node22 = nodeOfMajor(22);
const nodes: readonly (readonly [string, string | undefined])[] = [
  [process.version.replace(/\..*/, ""), process.execPath],
  ["v22", node22],
];

describe.each(nodes)("packed and installed into an empty project, on Node %s", (_, node = "") => {
  const why = node === "" ? "There is no Node 22 on the path, nor in HARBORFORGE_TEST_NODE22." : undefined;

  /** Runs a program in the project to its end. @returns what it printed, as JSON */
  async function printed(program: string, args: readonly string[], name: string): Promise<unknown> {
    const file = join(project.path, `${name}.mjs`);
    await writeFile(file, program);
    const { stdout } = await run(node, [file, ...args], { cwd: project.path, env: {}, timeout: 60_000 });
    return JSON.parse(stdout);
  }

  test("the client beats and watches, by its former name too", { timeout: 90_000 }, async (context) => {
    if (why !== undefined) context.skip(why);
    const args = [service().addresses.grpc, unique("packed")];
    expect(await printed(CLIENT_PROGRAM, args, "client")).toEqual({
      outcomes: ["applied", "busy", "applied"],
      reason: "rate_limit",
      instants: [true, "number"],
      functions: ["function", "function"],
    });
  });

  test("the service serves its embedded database, and its commands call it", { timeout: 180_000 }, async (context) => {
    if (why !== undefined) context.skip(why);
    await using stage = await openStage();
    const npx = commands(stage, node);
    const serving = await serves(npx(["serve"]));
    // npx passes signals on to a shell, which keeps them to itself.
    const stop = async (): Promise<boolean> =>
      process.kill(Number(await readFile(join(stage.dataDir, "owner.pid"), "utf8")), "SIGTERM");
    await using undo = new AsyncDisposableStack();
    undo.defer(async () => void (await stop().catch(() => false)));
    const target = ["--address", serving.grpc];
    const created = await npx(["users", "create", "bob", "--agent-id", "bob-1", "--claw", "claw-1", ...target]).ended;
    expect(created).toMatchObject({ code: 0 });
    const claimed = await npx(["agents", "status", "bob-1", "on_call", "-o", "json", ...target]).ended;
    expect(claimed).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(claimed.stdout)).toMatchObject({ agentId: "bob-1", status: "AGENT_STATUS_ON_CALL" });
    // Its claws are processes that run another file of the package.
    const args = ["--agents", "2", "--claws", "1", "--processes", "--duration", "2s", "--names", "packed"];
    const simulated = await npx(["simulate", ...args, ...target]).ended;
    expect(simulated).toMatchObject({ code: 0 });
    expect(simulated.stdout).toMatch(/Duration .*: 2 agents on 1 claw, [1-9]\d* transitions/);
    await stop();
    const { code, stderr } = await serving.ended;
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining('"event":"service.stopped"') });
  });

  test("the embedded PostgreSQL's README runs unchanged", { timeout: 120_000 }, async (context) => {
    if (why !== undefined) context.skip(why);
    await using stage = await openStage();
    const [block, ...others] = runnableBlocks(await readFile(inProject(EMBEDDED, "README.md"), "utf8"));
    if (block === undefined) throw new Error("README has no block that runs");
    expect(others).toEqual([]);
    const program = join(project.path, "embedded.mjs");
    await writeFile(program, block.code.replaceAll("./data", stage.dataDir));
    const { code, stdout, stderr } = await stage.run(node, [program]).ended;
    expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: expect.stringContaining(block.shows) });
  });

  test("the client's README runs unchanged", { timeout: 120_000 }, async (context) => {
    if (why !== undefined) context.skip(why);
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
    const { grpc: address } = serving;
    const create = ["users", "create", "bob", "--agent-id", "bob-1", "--claw", "claw-1", "--address", address];
    expect(await commands(stage, node)(create).ended).toMatchObject({ code: 0 });
    const [agent, calendar, ...others] = runnableBlocks(await readFile(inProject(CLIENT, "README.md"), "utf8"));
    if (agent === undefined || calendar === undefined) throw new Error("README has no agent and no calendar that run");
    expect(others).toEqual([]);
    const runs = async (block: RunnableBlock, name: string) => {
      const program = join(project.path, `${name}.mjs`);
      await writeFile(program, addressed(block.code, serving));
      return stage.run(node, [program], { cwd: project.path });
    };
    const beating = await runs(agent, "agent");
    await says(beating, agent.shows);
    await using agents = createAgentCache({ address });
    await agents.ready;
    const done = new Promise<void>((resolve) => {
      agents.subscribe((event) => {
        const changes = event.kind === "changes" ? event.changes : [];
        if (changes.some(({ transition }) => transition.from === "busy" && transition.to === "idle")) resolve();
      });
    });
    const claimed = await (await runs(calendar, "calendar")).ended;
    expect(claimed).toMatchObject({ code: 0, stdout: expect.stringContaining(calendar.shows), stderr: "" });
    await done;
    beating.kill("SIGINT");
    expect(await beating.ended).toMatchObject({ code: 0, stderr: "" });
  });

  test("the gRPC bridge answers a call", { timeout: 60_000 }, async (context) => {
    if (why !== undefined) context.skip(why);
    expect(await printed(BRIDGE_PROGRAM, [], "bridge")).toEqual({ error: null, status: 1 });
  });
});

const node20 = nodeOfMajor(20);

test("the packed program says which Node it needs, on an older one", async (context) => {
  if (node20 === undefined) return context.skip("There is no Node 20 on the path, nor in HARBORFORGE_TEST_NODE20.");
  await using stage = await openStage();
  for (const command of [["--version"], ["serve"], ["fleet"]]) {
    const launcher = inProject(SERVICE, "bin/harborforge-agents.cjs");
    const { code, stdout, stderr } = await stage.run(node20, [launcher, ...command]).ended;
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(
      /^error: harborforge-agents needs Node\.js 22\.13 or newer\. This is Node\.js 20\.\S+: install a newer one\.\n$/,
    );
  }
});

test("the packed program loads no compiler, and only the client for a call", async () => {
  await using stage = await openStage();
  const hook = pathToFileURL(join(checkout, "test/support/loaded-modules.mjs")).href;
  const launcher = inProject(SERVICE, "bin/harborforge-agents.cjs");
  const { stderr } = await stage.run(process.execPath, [
    "--import",
    hook,
    launcher,
    "fleet",
    "--address",
    "127.0.0.1:1",
  ]).ended;
  const urls: readonly string[] = JSON.parse(stderr.trimEnd().split("\n").at(-1) ?? "[]");
  expect(urls.length).toBeGreaterThan(20);
  expect(urls.filter((url) => url.endsWith(".ts"))).toEqual([]);
  expect(urls.filter((url) => /\/(pg|knex|objection|pino|grpc-js|embedded-postgres)\//.test(url))).toEqual([]);
  expect(
    urls.filter((url) => /\/harborforge-agents\/src\/(server|rpc|storage|liveness|watch|simulate)\//.test(url)),
  ).toEqual([]);
});

describe.each(SHELLS)("in %s", (shell) => {
  test("the Tab key completes the packed command", { timeout: 120_000 }, async ({ skip }) => {
    if (!hasShell(shell)) skip(`there is no ${shell} here`);
    const home = join(project.path, "homes", shell);
    await mkdir(home, { recursive: true });
    const path = [join(project.path, "node_modules/.bin"), dirname(process.execPath), process.env.PATH];
    await expectCompletion(shell, { home, path: path.join(delimiter) });
  });
});

/** Runs the packed command line on a Node, by npx, in the project. */
function commands(stage: Stage, node: string) {
  const PATH = [dirname(node), dirname(process.execPath), process.env.PATH].join(delimiter);
  return (args: readonly string[], options: RunOptions = {}) =>
    stage.run("npx", ["--no-install", SERVICE, ...args], {
      ...options,
      cwd: project.path,
      env: { PATH, npm_config_offline: "true", npm_config_update_notifier: "false", ...options.env },
    });
}

describe("types compile in a strict project that checks the declarations of libraries", () => {
  test.each([
    // The browser entry and its types name nothing of Node.
    ["browsers", `${CLIENT}/watch`, [], BROWSER_TYPES],
    ["Node", CLIENT, ["node"], nodeTypes(CLIENT)],
    ["calls", `${CLIENT}/contract`, ["node"], CONTRACT_TYPES],
    ["Node, by its former name", `${SERVICE}/client`, ["node"], nodeTypes(`${SERVICE}/client`)],
  ])(
    "for %s: %s",
    async (name, _entry, types, program) => {
      const folder = join(project.path, name.replaceAll(/\W+/g, "-"));
      await mkdir(folder);
      const compilerOptions = {
        module: "nodenext",
        target: "es2024",
        lib: ["es2024", "esnext.disposable", "dom"],
        types,
        typeRoots: [join(checkout, "node_modules/@types")],
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true,
      };
      await writeFile(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.ts"] }));
      await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
      await writeFile(join(folder, "program.ts"), program);
      const PATH = [join(checkout, "node_modules/.bin"), process.env.PATH].join(delimiter);
      await run("tsc", ["--project", folder], { cwd: checkout, env: { PATH } }).catch(
        ({ stdout }: { stdout: string }) => expect.unreachable(stdout),
      );
    },
    60_000,
  );
});

describe("a packed package", () => {
  const DOCUMENTS = ["CHANGELOG.md", "LICENSE", "README.md", "package.json"];

  test.each([
    [CLIENT, /^dist\/(gen|packages\/client\/src|common\/(contract|scheduling|secrets))\//],
    [BRIDGE, /^dist\/(packages\/connect-grpc-js\/src|common\/(contract|scheduling))\//],
    [EMBEDDED, /^dist\/packages\/embedded-postgres\/src\//],
  ])("%s contains its entries and the files they import, and no others", async (name, allowed) => {
    const files = await project.filesOf(name);
    expect(files.filter((file) => !file.startsWith("dist/"))).toEqual(DOCUMENTS);
    const reached = new Set<string>();
    for (const entry of await entriesOf(name)) {
      await reach(name, entry, reached);
      await reach(name, entry.replace(/\.js$/, ".d.ts"), reached);
    }
    // A module whose types alone are used is there as both.
    const module = (file: string): string => file.replace(/\.(d\.ts|js)$/, "");
    const modules = new Set([...reached].filter((file) => file.startsWith("dist/")).map(module));
    const compiled = files.filter((file) => file.startsWith("dist/"));
    expect(compiled.filter((file) => !modules.has(module(file)))).toEqual([]);
    expect([...modules].filter((file) => !compiled.includes(`${file}.js`))).toEqual([]);
    expect([...modules].filter((file) => !allowed.test(file))).toEqual([]);
  });

  test("harborforge-agents holds compiled files and SQL, and the private packages, but no client", async () => {
    const files = await project.filesOf(SERVICE);
    const kept = (pattern: RegExp) => files.filter((file) => pattern.test(file));
    expect(kept(/^[^/]+$/)).toEqual(DOCUMENTS);
    expect(kept(/^(?!src\/client\/|node_modules\/).*\.ts$/)).toEqual([]);
    const folders = new Set(files.filter((file) => file.includes("/")).map((file) => file.split("/")[0]));
    expect([...folders].sort()).toEqual(["bin", "common", "deploy", "gen", "migrations", "node_modules", "src"]);
    expect(kept(/^bin\//)).toEqual(["bin/harborforge-agents.cjs"]);
    expect(new Set(kept(/^node_modules\//).map((file) => file.split("/").slice(1, 3).join("/")))).toEqual(
      new Set([BRIDGE, EMBEDDED]),
    );
    const client: unknown = await manifestOf(project, CLIENT);
    expect(await manifestOf(project, SERVICE)).toMatchObject({
      dependencies: { [CLIENT]: Object(client).version },
      bundleDependencies: [BRIDGE, EMBEDDED],
    });
  });
});

test("a host with other versions of what the client imports gets no second copy", async () => {
  await using folder = await openTarballs();
  const { dependencies } = Object(await manifestOf(project, CLIENT));
  expect(Object.keys(dependencies)).toEqual(["@bufbuild/protobuf", "@connectrpc/connect"]);
  for (const range of Object.values(dependencies)) expect(range).toMatch(/^\^2\.\d+\.0$/);
  const host = join(folder.path, "host");
  const [client, protobuf, connect, web] = await Promise.all([
    folder.pack(CLIENT, inProject(CLIENT, "")),
    folder.pack("@bufbuild/protobuf", join(checkout, "node_modules/@bufbuild/protobuf"), "2.99.1"),
    folder.pack("@connectrpc/connect", join(checkout, "node_modules/@connectrpc/connect"), "2.99.2"),
    // It requires one exact version of Connect.
    folder.pack("@connectrpc/connect-web", join(checkout, "node_modules/@connectrpc/connect-web"), "2.99.2"),
  ]);
  await mkdir(host);
  const wanted = { "@bufbuild/protobuf": protobuf, "@connectrpc/connect": connect, "@connectrpc/connect-web": web };
  const manifest = { name: "a-host", type: "module", dependencies: { ...wanted, [CLIENT]: client } };
  await writeFile(join(host, "package.json"), JSON.stringify(manifest));
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund"], { cwd: host, env: folder.env });
  const installed = await readdir(host, { recursive: true, withFileTypes: true });
  const copies = installed
    .filter(({ name, parentPath }) => name === "package.json" && /node_modules\/@[^/]+\/[^/]+$/.test(parentPath))
    .map(({ parentPath }) => relative(host, parentPath));
  expect(copies.sort()).toEqual([
    "node_modules/@bufbuild/protobuf",
    "node_modules/@connectrpc/connect",
    "node_modules/@connectrpc/connect-web",
  ]);
  const same = `
    import { createServiceClients } from "${CLIENT}";
    import { ConnectError } from "@connectrpc/connect";
    const call = createServiceClients({ address: "127.0.0.1:1" }).agents.getFleet({});
    console.log(await call.catch(({ name, code, cause }) => [name, code, cause instanceof ConnectError].join(" ")));
  `;
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", same], { cwd: host });
  expect(stdout.trim()).toBe("CallError UNAVAILABLE true");
}, 120_000);

test("the browser entry imports nothing of Node", async () => {
  const reached = new Set<string>();
  await reach(CLIENT, "dist/packages/client/src/watch.js", reached);
  expect([...reached].filter((name) => !name.startsWith("dist/")).sort()).toEqual([
    "@bufbuild/protobuf",
    "@bufbuild/protobuf/codegenv2",
    "@bufbuild/protobuf/wkt",
    "@connectrpc/connect",
  ]);
  for (const name of reached) {
    if (!name.startsWith("dist/")) continue;
    expect(await readFile(inProject(CLIENT, name), "utf8"), name).not.toMatch(/\b(Buffer|require|__dirname)\b/);
  }
});

/** A folder in which packages are packed under other versions. */
async function openTarballs() {
  const path = await temporaryFolder("tarballs");
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);
  const env = { PATH, HOME: path, npm_config_cache: join(path, ".npm") };
  return {
    path,
    env,
    /** @returns the tarball, as a dependency */
    async pack(name: string, source: string, version?: string): Promise<string> {
      const copy = join(path, name);
      await cp(source, copy, { recursive: true, dereference: true });
      const manifest = JSON.parse(await readFile(join(copy, "package.json"), "utf8"));
      const peers = Object.keys(manifest.peerDependencies ?? {}).includes("@connectrpc/connect")
        ? { peerDependencies: { ...manifest.peerDependencies, "@connectrpc/connect": version } }
        : {};
      const changed = { ...manifest, ...(version === undefined ? {} : { version, ...peers }), scripts: {} };
      await writeFile(join(copy, "package.json"), JSON.stringify(changed));
      const args = ["pack", copy, "--silent", "--pack-destination", path];
      const { stdout } = await run("npm", args, { cwd: path, env });
      return `file:${join(path, stdout.trim())}`;
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

function inProject(name: string, file: string): string {
  return join(project.path, "node_modules", name, file);
}

/** The compiled files that `exports` names. */
async function entriesOf(name: string): Promise<string[]> {
  const exports: Readonly<Record<string, unknown>> = Object(await manifestOf(project, name)).exports;
  const files = Object.values(exports).map((conditions) => String(Object(conditions).default ?? ""));
  return files.filter((file) => file.endsWith(".js")).map((file) => join(file));
}

const IMPORT =
  /^(?:import\s+(?:[^"'();]*?\s+from\s+)?|export\s+(?:type\s+)?(?:\*|\{[^}]*\})\s+from\s+)["']([^"']+)["']/gm;

/** Follows imports: to files by their paths in the package, to packages by their names. */
async function reach(name: string, file: string, reached: Set<string>): Promise<void> {
  if (reached.has(file)) return;
  reached.add(file);
  const code = await readFile(inProject(name, file), "utf8");
  for (const [, to = ""] of [...code.matchAll(IMPORT), ...code.matchAll(/\bimport\(\s*["']([^"']+)["']/g)]) {
    const target = to.startsWith(".") ? join(dirname(file), to) : to;
    // Declarations name the sources.
    await (to.startsWith(".") ? reach(name, target.replace(/(?<!\.d)\.ts$/, ".d.ts"), reached) : reached.add(target));
  }
}
