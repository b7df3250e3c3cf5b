import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestDatabase } from "../support/cluster.ts";
import { runnableBlocks } from "../support/fenced-blocks.ts";
import { nodeOfMajor } from "../support/other-node.ts";
import { execFileSync } from "../support/owned-process.ts";
import { linkPackages, openPackedProject, type PackedProject } from "../support/packed-project.ts";
import { checkout, openStage } from "../support/program.ts";
import { addressed, runBlock } from "../support/run-block.ts";

const PAGE = await readFile(join(checkout, "docs/clients.md"), "utf8");

let project: PackedProject;
beforeAll(async () => {
  project = await openPackedProject(["harborforge-agents-client"]);
  await linkPackages(project.path, ["@connectrpc/connect-web"]);
}, 180_000);
afterAll(() => project[Symbol.asyncDispose]());

const nodes: readonly (readonly [string, string | undefined])[] = [
  [process.version.replace(/\..*/, ""), process.execPath],
  ["v22", nodeOfMajor(22)],
];

describe.each(nodes)("on Node %s", (_, node = "") => {
  const why = node === "" ? "There is no Node 22 on the path, nor in HARBORFORGE_TEST_NODE22." : undefined;

  test.for([
    ["docs/clients.md", { sh: 4, js: 4 }],
    ["docs/services.md", { sh: 9, js: 11 }],
    ["docs/migrating.md", { sh: 1, js: 1 }],
  ] as const)(
    "%s: JavaScript and shell blocks run unchanged, one after the other",
    { timeout: 180_000 },
    async ([name, languages], context) => {
      if (why !== undefined) context.skip(why);
      await using stage = await openStage();
      await using database = await createTestDatabase();
      const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
      const blocks = runnableBlocks(await readFile(join(checkout, name), "utf8"));
      const counts = [...Map.groupBy(blocks, ({ language }) => language)].map(([language, all]) => [
        language,
        all.length,
      ]);
      expect(Object.fromEntries(counts)).toEqual(languages);
      for (const block of blocks) await runBlock(stage, block, serving, { project: project.path, node });
    },
  );
});

/** Why Python cannot be tested here; undefined if it can. */
function missingForPython(): string | undefined {
  try {
    execFileSync("python3", ["-c", "import grpc"], { env: PYTHON_ENV, stdio: "ignore" });
  } catch {
    return "python3 has no grpc (Debian: python3-grpcio)";
  }
  for (const [name, where] of [
    ["protoc", "protobuf-compiler"],
    ["grpc_python_plugin", "protobuf-compiler-grpc"],
  ]) {
    try {
      execFileSync("sh", ["-c", `command -v ${name}`], { env: PYTHON_ENV, stdio: "ignore" });
    } catch {
      return `there is no ${name} (Debian: ${where})`;
    }
  }
  return undefined;
}

/** The machine's own Python first: another one has packages of its own. */
const PYTHON_ENV = { PATH: `/usr/bin:${process.env.PATH ?? ""}` };
const missing = missingForPython();
if (missing !== undefined) process.stderr.write(`docs/clients.md: Python is not tried, since ${missing}.\n`);

test.runIf(missing === undefined)(
  "docs/clients.md: Python blocks run unchanged",
  async () => {
    await using stage = await openStage();
    await using database = await createTestDatabase();
    const serving = await stage.serve({ env: { DATABASE_URL: database.url } });
    const [create] = runnableBlocks(PAGE);
    if (create === undefined) throw new Error("nobody creates bob-1");
    await runBlock(stage, create, serving);
    const stubs = join(stage.path, "stubs");
    const [, generate = ""] = /^<!-- python -->\n```sh\n([\s\S]*?)^```$/m.exec(PAGE) ?? [];
    const generating = stage.run("sh", ["-e", "-c", generate.replaceAll(/\bstubs\b/g, stubs)], { env: PYTHON_ENV });
    expect(await generating.ended).toMatchObject({ code: 0, stderr: "" });
    const blocks = [...PAGE.matchAll(/^<!-- python: (.+) -->\n```python\n([\s\S]*?)^```$/gm)];
    expect(blocks).toHaveLength(2);
    for (const [index, [, shows, code = ""]] of blocks.entries()) {
      const program = join(stage.path, `block-${index}.py`);
      await writeFile(program, addressed(code, serving));
      const running = stage.run("python3", [program], { env: { ...PYTHON_ENV, PYTHONPATH: stubs } });
      const { code: exitCode, stdout, stderr } = await running.ended;
      expect({ exitCode, stderr }, code).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout, code).toContain(shows);
    }
  },
  120_000,
);
