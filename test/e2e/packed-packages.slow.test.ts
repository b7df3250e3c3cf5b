import { mkdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { createAgentCache } from "harborforge-agents-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { type RunnableBlock, runnableBlocks } from "../support/fenced-blocks.ts";
import { nodeOfMajor } from "../support/other-node.ts";
import { execFile } from "../support/owned-process.ts";
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

/** Beats in this thread and in a worker, watches, and shares one library with programs that still import the former name. */
const CLIENT_PROGRAM = `
import { createAgentCache, createHeartbeatClient, createServiceClients, exhaustionFromError } from "${CLIENT}";
import { watchAgents } from "${CLIENT}/watch";
import { createHeartbeatClient as formerly } from "${SERVICE}/client";
import { watchAgents as formerlyWatched } from "${SERVICE}/client/watch";

const [address, agentId] = process.argv.slice(2);
const service = createServiceClients({ address });
await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
const cache = createAgentCache({ address, filter: { agentIds: [agentId] } });
await cache.ready;
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
const one = formerly === createHeartbeatClient && formerlyWatched === watchAgents;
console.log(JSON.stringify({ outcomes, reason: seen.exhaustion.reason, one }));
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
      one: true,
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
    [CLIENT, /^dist\/(gen|packages\/client\/src|common\/(contract|scheduling))\//],
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
    expect([...folders].sort()).toEqual(["common", "deploy", "gen", "migrations", "node_modules", "src"]);
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

test("the browser entry imports nothing of Node", async () => {
  const reached = new Set<string>();
  await reach(CLIENT, "dist/packages/client/src/watch.js", reached);
  expect([...reached].filter((name) => !name.startsWith("dist/")).sort()).toEqual([
    "@bufbuild/protobuf",
    "@bufbuild/protobuf/codegenv2",
    "@bufbuild/protobuf/wkt",
    // The meaning of the contract's annotations, of messages alone; without their checks.
    "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js",
    "@connectrpc/connect",
  ]);
  for (const name of reached) {
    if (!name.startsWith("dist/")) continue;
    expect(await readFile(inProject(CLIENT, name), "utf8"), name).not.toMatch(/\b(Buffer|require|__dirname)\b/);
  }
});

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
