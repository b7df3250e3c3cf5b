import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, cp, mkdir, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { readPostmasterFile } from "../../src/storage/embedded/postmaster-file.ts";
import { clustersIn, postgresIn, processesMarked } from "../support/left-behind.ts";
import { spawn, temporaryFolder } from "../support/owned-process.ts";
import { OWNER_VARIABLE } from "../support/process-owner-words.ts";
import { checkout } from "../support/program.ts";
import { until } from "../support/until.ts";

/** Marks all that a run starts, whoever starts it. */
const MARK = "TEST_CUT_OFF_RUN";
/** What a run takes to come so far that it can be cut off in its midst. */
const START_MS = 60_000;
/** From the end of a run to the end of all that it left. */
const END_MS = 30_000;

const VITEST = ["node_modules/vitest/vitest.mjs", "run", "--reporter=dot"];

/** Programs in a form that lasts longer than it takes to end them, and how many services or servers show that one is in its midst. */
const PROGRAMS: readonly (readonly [
  name: string,
  args: readonly string[],
  inItsMidst: (run: Run) => Promise<boolean>,
])[] = [
  [
    "the tests of a file in test/integration",
    [...VITEST, "test/integration/gap-rule.slow.test.ts"],
    async (run) => (await run.databasePorts()).length > 0,
  ],
  [
    "the tests of the embedded PostgreSQL",
    [...VITEST, "test/integration/embedded-postgres.slow.test.ts"],
    async (run) => (await run.databasePorts()).length > 1,
  ],
  ["the tests of a file in test/e2e", [...VITEST, "test/e2e/process.slow.test.ts"], serves],
  [
    "the tests of a terminal",
    [...VITEST, "test/e2e/cli-terminal.test.ts"],
    async (run) => run.running("src/main.ts") > 0,
  ],
  ["the chaos program", ["scripts/chaos.ts", "--seconds", "60", "--agents", "60", "--claws", "3"], serves],
  [
    "the check of watchers",
    ["test/watch-check/main.ts", "1-9", "30"],
    async (run) => run.running("replica-process.ts") > 0,
  ],
  ["the fuzzer", ["scripts/fuzz.ts", "--minutes", "2"], serves],
  [
    "the bench",
    ["bench/main.ts", "--only", "calls", "--seconds", "9", "--out", "/nonexistent/harborforge-bench"],
    serves,
  ],
];

/** A run in a process group and with temporary files of its own. */
class Run {
  readonly id = randomBytes(8).toString("hex");
  readonly folder: string;
  readonly pid: number;
  readonly ended: Promise<unknown>;
  #output = "";

  private constructor(folder: string, args: readonly string[]) {
    this.folder = folder;
    const child = spawn(process.execPath, args, {
      cwd: checkout,
      // Nothing of the run of tests that this one is part of.
      env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: folder, [MARK]: this.id },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.#output = (this.#output + text).slice(-4_000);
      });
    }
    this.pid = child.pid ?? 0;
    this.ended = once(child, "exit");
  }

  static async start(args: readonly string[]): Promise<Run> {
    const folder = await temporaryFolder("cut-off");
    // Root runs PostgreSQL by another account, which has to pass through.
    await chmod(folder, 0o711);
    return new Run(folder, args);
  }

  processes(): number[] {
    const isOurs = (value: string) => value.split(",").some((owner) => owner.startsWith(`${this.pid}-`));
    // A service is started without the environment of its test, but for the mark of its owner.
    return [
      ...new Set([...processesMarked(MARK, (value) => value === this.id), ...processesMarked(OWNER_VARIABLE, isOurs)]),
    ];
  }

  /** Those processes whose command line names something. */
  running(what: string): number {
    return this.processes().filter((pid) => commandLine(pid).includes(what)).length;
  }

  servers(): Promise<number[]> {
    return postgresIn(this.folder);
  }

  /** Those of its PostgreSQL servers that take connections. */
  async databasePorts(): Promise<number[]> {
    const files = await Promise.all((await clustersIn(this.folder)).map(readPostmasterFile));
    return files.flatMap((file) => (file?.status === "ready" ? (file.port ?? []) : []));
  }

  /** All ports at which it listens. */
  async ports(): Promise<number[]> {
    return [...(await this.databasePorts()), ...portsOf(this.processes())];
  }

  async reaches(what: string, isThere: () => boolean | Promise<boolean>): Promise<void> {
    let over = false;
    void this.ended.then(() => {
      over = true;
    });
    await until(what, async () => (await paced(isThere)) || over, START_MS);
    if (over) throw new Error(`the run ended before ${what}: ${this.#output}`);
  }

  /** That nothing of it is left: no process, no server, no port of one, no file. */
  async leavesNothing(ports: readonly number[]): Promise<void> {
    let left: unknown;
    const isClean = async () => {
      const processes = this.processes().map(commandLine);
      const servers = await this.servers();
      const files = readdirSync(this.folder);
      left = { processes, servers, files };
      return processes.length + servers.length + files.length === 0;
    };
    await until("all of the run is gone", () => paced(isClean), END_MS).catch((error: unknown) => {
      throw new Error(JSON.stringify(left), { cause: error });
    });
    for (const port of ports) expect(await isOpen(port), `port ${port}`).toBe(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Where the test fails: what a run left is ended by its number.
    for (const pid of [...this.processes(), ...(await this.servers())]) kill(pid, "SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Looking at all processes of a machine costs some milliseconds, which the run could use. */
async function paced<Found>(probe: () => Found | Promise<Found>): Promise<Found> {
  await delay(100);
  return await probe();
}

async function serves(run: Run): Promise<boolean> {
  return (await run.databasePorts()).length > 0 && run.running("src/main.ts") > 0;
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").slice(0, 200);
  } catch {
    return "";
  }
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** The ports of TCP at which processes listen, of those that a run started. */
function portsOf(pids: readonly number[]): number[] {
  const sockets = new Set(pids.flatMap(socketsOf));
  return ["tcp", "tcp6"].flatMap((table) =>
    readFileSync(`/proc/net/${table}`, "utf8")
      .split("\n")
      .flatMap((line) => {
        const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
        const isListening = state === "0A" && sockets.has(inode);
        return isListening ? [Number.parseInt(local.split(":")[1] ?? "", 16)] : [];
      }),
  );
}

function socketsOf(pid: number): string[] {
  try {
    const links = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    return links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []);
  } catch {
    return [];
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const open = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(
      () => false,
      () => false,
    ),
  ]).catch(() => false);
  socket.destroy();
  return open;
}

const isLinux = process.platform === "linux";

describe.runIf(isLinux)("a run that is cut off leaves nothing behind", { timeout: START_MS + 2 * END_MS }, () => {
  test.each(PROGRAMS)("killed at its start: %s", async (_name, args) => {
    await using run = await Run.start(args);
    const afterMs = Math.random() * 1_500;
    await delay(afterMs);
    const ports = await run.ports();
    kill(run.pid, "SIGKILL");
    await run.leavesNothing(ports);
  });

  test.each(PROGRAMS)("killed in its midst: %s", async (_name, args, inItsMidst) => {
    await using run = await Run.start(args);
    await run.reaches("it is in its midst", () => inItsMidst(run));
    await delay(Math.random() * 500);
    const ports = await run.ports();
    expect(ports.length).toBeGreaterThan(0);
    kill(run.pid, "SIGKILL");
    await run.leavesNothing(ports);
  });

  test.each(
    [PROGRAMS[0], PROGRAMS[2], PROGRAMS[4], PROGRAMS[6]].flatMap((program) => (program === undefined ? [] : [program])),
  )("interrupted by Ctrl-C: %s", async (_name, args, inItsMidst) => {
    await using run = await Run.start(args);
    await run.reaches("it is in its midst", () => inItsMidst(run));
    kill(-run.pid, "SIGINT");
    await run.leavesNothing([]);
  });

  test("a process of the tests of one file, killed alone, takes with it what it started", async () => {
    await using run = await Run.start([...VITEST, "test/e2e/process.slow.test.ts"]);
    await run.reaches("a service serves", () => serves(run));
    const isFork = (pid: number) => parentOf(pid) === run.pid && !commandLine(pid).includes("process-owner");
    const forks = run.processes().filter(isFork);
    expect(forks.length).toBeGreaterThan(0);
    for (const pid of forks) kill(pid, "SIGKILL");
    await until("the service is gone", () => run.running("src/main.ts") === 0, END_MS);
    await run.leavesNothing([]);
  });

  // With an `npm` that does nothing but wait: the real one would install anew what this run of tests is made of.
  test("killed alone: .ci/run", async () => {
    const folder = await temporaryFolder("ci");
    const [programs, files] = [join(folder, "bin"), join(folder, "tmp")];
    for (const path of [programs, files]) await mkdir(path);
    await cp(join(checkout, ".ci"), join(folder, ".ci"), { recursive: true });
    await writeFile(join(programs, "npm"), '#!/bin/sh\n[ "$1" = ci ] && exit 0\nsetsid sleep 600 &\nsleep 600\n', {
      mode: 0o755,
    });
    const id = randomBytes(8).toString("hex");
    const run = spawn("bash", [join(folder, ".ci/run")], {
      env: { PATH: [programs, process.env.PATH].join(delimiter), TMPDIR: files, [MARK]: id },
      stdio: "ignore",
      detached: true,
    });
    const processes = () => processesMarked(MARK, (value) => value === id).map(commandLine);
    await until("its tests run", () => processes().filter((line) => line.startsWith("sleep")).length === 2, START_MS);
    run.kill("SIGKILL");
    await until("all of it is gone", () => processes().length + readdirSync(files).length === 0, END_MS);
    await rm(folder, { recursive: true });
  });
});
