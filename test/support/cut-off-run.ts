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

/** Marks all processes that a run starts, also indirectly. */
export const MARK = "TEST_CUT_OFF_RUN";
/** The time until a run is in progress and can be killed. */
export const START_MS = 60_000;
/** From the end of a run to the end of all its processes. */
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
      // Without the variables of the run of tests that this one is part of.
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
    // Root runs PostgreSQL as another account, which has to enter the folder.
    await chmod(folder, 0o711);
    return new Run(folder, args);
  }

  processes(): number[] {
    const isOurs = (value: string) => value.split(",").some((owner) => owner.startsWith(`${this.pid}-`));
    // A service is started without the environment of its test, except the mark of its owner.
    return [
      ...new Set([...processesMarked(MARK, (value) => value === this.id), ...processesMarked(OWNER_VARIABLE, isOurs)]),
    ];
  }

  /** The processes whose command line contains a text. */
  running(what: string): number {
    return this.processes().filter((pid) => commandLine(pid).includes(what)).length;
  }

  servers(): Promise<number[]> {
    return postgresIn(this.folder);
  }

  /** Its PostgreSQL servers that accept connections. */
  async databasePorts(): Promise<number[]> {
    const files = await Promise.all((await clustersIn(this.folder)).map(readPostmasterFile));
    return files.flatMap((file) => (file?.status === "ready" ? (file.port ?? []) : []));
  }

  /** All its listening ports. */
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

  /** Expects that no process, server, port or file of it is left. */
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
    // When the test fails, the remaining processes of a run are ended by their ids.
    for (const pid of [...this.processes(), ...(await this.servers())]) kill(pid, "SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A scan of all processes of a machine costs some milliseconds, which the run could use. */
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

/** The listening TCP ports of the processes that a run started. */
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
