import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { execFile, execFileSync } from "../support/owned-process.ts";
import { type ClientProject, openClientProject } from "../support/packed-client.ts";
import { checkout } from "../support/program.ts";
import { unique, useService } from "../support/service.ts";

const run = promisify(execFile);
const service = useService();
let project: ClientProject;

beforeAll(async () => {
  project = await openClientProject();
});
afterAll(() => project[Symbol.asyncDispose]());

const PROGRAM = `
import { createAgentCache, createHeartbeatClient, createServiceClients, exhaustionFromError } from "harborforge-agents/client";
import { watchAgents } from "harborforge-agents/client/watch";

const [address, agentId] = process.argv.slice(2);
const service = createServiceClients({ address });
await service.users.createUser({ username: agentId, agentId, clawIdentifier: "claw-1" });
const cache = createAgentCache({ address, filter: { agentIds: [agentId] } });
await cache.ready;
const claw = createHeartbeatClient({ address, claw: "claw-1" });
const agent = claw.agent(agentId);
const said = [await agent.busy(), agent.status];
await agent.exhausted(exhaustionFromError({ status: 429, headers: new Headers({ "retry-after": "60" }) }));
const seen = await cache.waitFor(({ get }) => get(agentId).status === "exhausted" && get(agentId));
await claw.close();
await cache.waitFor(({ get }) => get(agentId).status === "offline");
const threaded = createHeartbeatClient({ address, claw: "claw-1", worker: true });
const problems = [];
threaded.on("worker", (news) => problems.push(news.state));
said.push(await threaded.agent(agentId).busy(), ...problems);
await threaded.close();
await cache.close();
service.close();
console.log(JSON.stringify({ node: process.version, said, reason: seen.exhaustion.reason, watch: typeof watchAgents }));
`;

const BROWSER_PROGRAM = `
import { createAgentCache, watchAgents, type WatchEvent } from "harborforge-agents/client/watch";
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
const NODE_PROGRAM = `
import { createHeartbeatClient, exhaustionFromError, ReportError, type AgentHandle } from "harborforge-agents/client";
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

/** Programs named node on the path, except the running one. */
function otherNodes(major: number): string[] {
  const found = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "node"));
  const named = process.env.HARBORFORGE_TEST_NODE22;
  return [...new Set(named === undefined ? found : [named, ...found])].filter(
    (node) => existsSync(node) && execFileSync(node, ["--version"], { encoding: "utf8" }).startsWith(`v${major}.`),
  );
}

async function runs(node: string): Promise<void> {
  const program = join(project.path, "program.mjs");
  await writeFile(program, PROGRAM);
  const { stdout, stderr } = await run(node, [program, service().addresses.grpc, unique("packed")], {
    cwd: project.path,
    env: {},
    timeout: 60_000,
  });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toMatchObject({
    said: ["applied", "busy", "applied"],
    reason: "rate_limit",
    watch: "function",
  });
}

describe("the packed client, in an empty project", () => {
  test("beats and watches on this Node", async () => {
    await runs(process.execPath);
  }, 90_000);

  const [node22] = otherNodes(22);
  if (node22 === undefined)
    process.stderr.write("No Node 22 on the path, nor named by HARBORFORGE_TEST_NODE22: not tried on it.\n");
  test.runIf(node22 !== undefined)(
    "beats and watches on Node 22",
    async () => {
      if (node22 !== undefined) await runs(node22);
    },
    90_000,
  );

  test("contains its entries and the files they import, and no others", async () => {
    const top = project.packed.filter((name) => !name.startsWith("dist/"));
    // npm always packs the target of `bin`.
    expect(top.sort()).toEqual(["LICENSE", "README.md", "package.json", "src/main.ts"]);
    const reached = new Set<string>();
    for (const entry of ENTRIES) {
      await reach(`${entry}.js`, reached);
      await reach(`${entry}.d.ts`, reached);
    }
    const files = project.packed.filter((name) => name.startsWith("dist/"));
    // A module whose types alone are used is there as both.
    const named = (name: string): string => name.replace(/\.(d\.ts|js)$/, "");
    const modules = new Set([...reached].filter((name) => name.startsWith("dist/")).map(named));
    expect(files.filter((name) => !modules.has(named(name)))).toEqual([]);
    expect([...modules].filter((name) => !files.includes(`${name}.js`))).toEqual([]);
    expect([...modules].filter((name) => !/^dist\/(gen|src\/client|src\/domain)\//.test(name))).toEqual([]);
  });

  test.each([
    // The browser entry and its types import nothing of Node.
    ["watch", [], BROWSER_PROGRAM],
    ["index", ["node"], NODE_PROGRAM],
  ])(
    "has types that compile without the sources: %s",
    async (name, types, program) => {
      const folder = join(project.path, name);
      await mkdir(folder);
      const compilerOptions = {
        module: "nodenext",
        target: "es2024",
        lib: ["es2024", "esnext.disposable", "dom"],
        types,
        typeRoots: [join(checkout, "node_modules/@types")],
        strict: true,
        exactOptionalPropertyTypes: true,
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

test("the browser entry imports nothing of Node", async () => {
  const reached = new Set<string>();
  await reach("dist/packages/client/src/watch.js", reached);
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
    expect(await readFile(join(project.path, PACKAGE, name), "utf8"), name).not.toMatch(
      /\b(Buffer|require|__dirname)\b/,
    );
  }
});

const PACKAGE = "node_modules/harborforge-agents";
const ENTRIES = [
  "dist/packages/client/src/index",
  "dist/packages/client/src/watch",
  "dist/packages/client/src/heartbeat-worker",
];
const IMPORT =
  /^(?:import\s+(?:[^"'();]*?\s+from\s+)?|export\s+(?:type\s+)?(?:\*|\{[^}]*\})\s+from\s+)["']([^"']+)["']/gm;

/** Follows imports: to files by their paths in the package, to packages by their names. */
async function reach(file: string, reached: Set<string>): Promise<void> {
  if (reached.has(file)) return;
  reached.add(file);
  const code = await readFile(join(project.path, PACKAGE, file), "utf8");
  for (const [, to = ""] of [...code.matchAll(IMPORT), ...code.matchAll(/\bimport\(\s*["']([^"']+)["']/g)]) {
    const target = to.startsWith(".") ? join(dirname(file), to) : to;
    // Declarations name the sources.
    await (to.startsWith(".") ? reach(target.replace(/(?<!\.d)\.ts$/, ".d.ts"), reached) : reached.add(target));
  }
}
