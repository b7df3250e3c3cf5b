import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { readPostmasterFile } from "../../packages/embedded-postgres/src/postmaster-file.ts";
import { clustersIn, postgresIn, processesMarked } from "./left-behind.ts";
import { spawn, temporaryFolder } from "./owned-process.ts";
import { OWNER_VARIABLE } from "./process-owner-words.ts";
import { checkout } from "./program.ts";
import { until } from "./until.ts";

/** Marks all that a run starts, whoever starts it. */
export const MARK = "TEST_CUT_OFF_RUN";
/** What a run takes to come so far that it can be cut off in its midst. */
export const START_MS = 60_000;
/** From the end of a run to the end of all that it left. */
export const END_MS = 30_000;

export const VITEST = ["node_modules/vitest/vitest.mjs", "run", "--reporter=dot"];

/** A run in a process group and with temporary files of its own. */
export class Run {
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

export async function serves(run: Run): Promise<boolean> {
  return (await run.databasePorts()).length > 0 && run.running("src/main.ts") > 0;
}

export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").slice(0, 200);
  } catch {
    return "";
  }
}

export function parentOf(pid: number): number {
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

export function kill(pid: number, signal: NodeJS.Signals): void {
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
