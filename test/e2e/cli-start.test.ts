import { chmod, mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { COMMANDS } from "../../src/cli/command-list.ts";
import { checkout, openStage } from "../support/program.ts";
import { useService } from "../support/service.ts";

const service = useService();
const HOOK = pathToFileURL(join(checkout, "test/support/loaded-modules.mjs")).href;
const LAUNCHER = "bin/harborforge-agents.cjs";

interface Start {
  readonly code: number | null;
  readonly stdout: string;
  /** The files that the command loaded, from the top of the checkout, and the names of packages. */
  readonly files: readonly string[];
  readonly packages: ReadonlySet<string>;
}

async function start(...args: string[]): Promise<Start> {
  await using stage = await openStage();
  const { code, stdout, stderr } = await stage.run(process.execPath, ["--import", HOOK, LAUNCHER, ...args], {
    env: { HARBORFORGE_ADDRESS: service().addresses.grpc },
  }).ended;
  const urls: readonly string[] = JSON.parse(stderr.trimEnd().split("\n").at(-1) ?? "[]");
  const paths = urls.filter((url) => url.startsWith("file:")).map((url) => relative(checkout, fileURLToPath(url)));
  const packages = paths.flatMap((path) => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  return { code, stdout, files: paths.filter((path) => !path.includes("node_modules/")), packages: new Set(packages) };
}

/** The files of the commands themselves. */
function commandFiles(files: readonly string[]): string[] {
  const shared = /\/(selection|exhaustion-options|fleet-names|server-settings|print-agent|user-key)\.ts$/;
  return files.filter((file) => file.startsWith("src/cli/commands/") && !shared.test(file));
}

/** What only the service needs, or only a simulation. */
const SERVICE_ONLY = /^src\/(server|rpc|liveness|watch|access|storage|simulate)|^src\/config\/settings|^migrations/;
/** What only heartbeats need. */
const HEARTBEATS_ONLY = /^packages\/client\/src\/(heartbeats|worker|provider)\//;
/** The packages of the parser of the command line, and of the client library. */
const CALLING: ReadonlySet<string> = new Set([
  "commander",
  "@bufbuild/protobuf",
  "@bufbuild/protovalidate",
  "@connectrpc/connect",
  "@connectrpc/connect-node",
]);

describe("a command loads only what it needs", () => {
  test.each([
    [["--version"], []],
    [["--help"], []],
    [["agents", "--help"], []],
    [["agents", "list", "--help"], ["src/cli/commands/agents/list.ts"]],
    [["fleet", "--no-such-flag"], ["src/cli/commands/fleet.ts"]],
  ])("%j: its own flags, and no client of the service", async (args, own) => {
    const { stdout, files, packages } = await start(...args);
    expect(commandFiles(files)).toEqual(own);
    expect(packages).toEqual(new Set(["commander"]));
    expect(files.filter((file) => SERVICE_ONLY.test(file) || file.startsWith("gen/"))).toEqual([]);
    if (!args.includes("--no-such-flag")) expect(stdout).not.toBe("");
  });

  test.each([
    [["agents", "list"], "src/cli/commands/agents/list.ts"],
    [["fleet"], "src/cli/commands/fleet.ts"],
    [["agents", "transitions"], "src/cli/commands/agents/transitions.ts"],
    [["users", "list", "-o", "json"], "src/cli/commands/users/list.ts"],
  ])("%j: the client for calls, but no server, database, log or heartbeats", async (args, own) => {
    const { code, files, packages } = await start(...args);
    expect(code).toBe(0);
    expect(commandFiles(files)).toEqual([own]);
    expect([...packages].filter((name) => !CALLING.has(name))).toEqual([]);
    expect(files.filter((file) => SERVICE_ONLY.test(file) || HEARTBEATS_ONLY.test(file))).toEqual([]);
  });

  test("beat: heartbeats too, but no server, database or log", async () => {
    const { code, files, packages } = await start("beat", "no-such-agent");
    expect(code).toBe(4);
    expect(commandFiles(files)).toEqual(["src/cli/commands/beat.ts"]);
    expect(files.filter((file) => SERVICE_ONLY.test(file))).toEqual([]);
    expect([...packages].filter((name) => !CALLING.has(name))).toEqual([]);
  });

  test("completion: the flags of all commands, but no client of the service", async () => {
    const { code, files, packages } = await start("completion", "bash");
    expect(code).toBe(0);
    expect(commandFiles(files)).toHaveLength(COMMANDS.length);
    expect(packages).toEqual(new Set(["commander"]));
  });
});

describe("the cache of compiled code", () => {
  /** The folder of the cache after a command, below a home. */
  async function run(prepare: (home: string) => Promise<Readonly<Record<string, string>>>): Promise<string[]> {
    await using stage = await openStage();
    const home = join(stage.path, "a-home");
    await mkdir(home, { mode: 0o700 });
    const env = { NODE_COMPILE_CACHE: "", HOME: home, ...(await prepare(home)) };
    const { code } = await stage.run(process.execPath, [LAUNCHER, "--version"], { env }).ended;
    expect(code).toBe(0);
    const everything = await readdir(stage.path, { recursive: true });
    const found = everything.filter((name) => name.endsWith("compiled"));
    for (const name of found) expect((await stat(dirname(join(stage.path, name)))).mode & 0o777).toBe(0o700);
    return found;
  }

  test("is in the user's own cache folder", async () => {
    expect(await run(async () => ({}))).toEqual(["a-home/.cache/harborforge-agents/compiled"]);
    expect(await run(async (home) => ({ XDG_CACHE_HOME: join(home, "x") }))).toEqual([
      "a-home/x/harborforge-agents/compiled",
    ]);
    expect(await run(async () => ({ XDG_CACHE_HOME: "relative" }))).toEqual([
      "a-home/.cache/harborforge-agents/compiled",
    ]);
  });

  test("is not used where another user could write to it", async () => {
    for (const open of [".", ".cache/harborforge-agents"]) {
      const found = await run(async (home) => {
        await mkdir(join(home, open), { recursive: true });
        await chmod(join(home, open), 0o777);
        return {};
      });
      expect(found, open).toEqual([]);
    }
  });

  test("is not needed: a home that does not exist is not created", async () => {
    expect(await run(async (home) => ({ HOME: join(home, "gone") }))).toEqual([]);
  });
});
