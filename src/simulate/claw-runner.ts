import { type ChildProcess, fork } from "node:child_process";
import { getCompileCacheDir } from "node:module";
import { dirname, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { type ClawAtWork, goodbyeTimeoutMs, startClaw } from "./claw-at-work.ts";
import { type ClawCommand, type ClawEvent, readClawEvent } from "./claw-messages.ts";

/** A source in a checkout, compiled in the package. */
const PROGRAM = fileURLToPath(new URL(`./claw-process${extname(import.meta.url)}`, import.meta.url));
/** How long a claw may take to stop after its goodbyes, in milliseconds. */
const STOP_TIMEOUT_MS = 2_000;

export interface ClawListener {
  onEvent(event: ClawEvent): void;
  /** The claw ended unexpectedly. `lastOutput`: the end of its standard error. */
  onEnded(lastOutput: string): void;
}

/** A running claw. */
export interface Claw {
  /** The process id; undefined without a process of its own. */
  readonly pid: number | undefined;
  /** Stops it without a goodbye, like a power cut. Resolves when it has stopped. */
  kill(): Promise<void>;
  /** Lets it send goodbyes for its agents and stop. */
  stop(): Promise<void>;
}

/** A claw in this process: cheap, so that there can be many. */
export class LocalClaw implements Claw {
  readonly pid = undefined;
  readonly #claw: ClawAtWork;
  #wanted = true;

  constructor(order: ClawCommand & { readonly kind: "start" }, { onEvent }: ClawListener) {
    this.#claw = startClaw(order, (event) => {
      if (this.#wanted) onEvent(event);
    });
  }

  async kill(): Promise<void> {
    this.#wanted = false;
    await this.#claw.kill();
  }

  async stop(): Promise<void> {
    this.#wanted = false;
    await this.#claw.stop();
  }
}

/** A claw that is a process of its own. */
export class ForkedClaw implements Claw {
  readonly pid: number | undefined;
  readonly #stopTimeoutMs: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #wanted = true;
  #lastOutput = "";

  constructor(order: ClawCommand & { readonly kind: "start" }, events: ClawListener) {
    const child = fork(PROGRAM, [], { env: environment(), stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.#child = child;
    this.#stopTimeoutMs = goodbyeTimeoutMs(order.agentIds.length) + STOP_TIMEOUT_MS;
    this.pid = child.pid;
    this.#ended = new Promise((resolve) => {
      child.once("exit", resolve);
      child.once("error", resolve);
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#lastOutput = `${this.#lastOutput}${text}`.slice(-500);
    });
    child.on("message", (message) => {
      const event = readClawEvent(message);
      if (event !== undefined && this.#wanted) events.onEvent(event);
    });
    void this.#ended.then(() => {
      if (this.#wanted) events.onEnded(this.#lastOutput.trim());
    });
    this.#send(order);
  }

  async kill(): Promise<void> {
    this.#wanted = false;
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  /** Kills the process after a timeout. */
  async stop(): Promise<void> {
    this.#wanted = false;
    this.#send({ kind: "stop" });
    const tooLate = setTimeout(() => this.#child.kill("SIGKILL"), this.#stopTimeoutMs);
    await this.#ended;
    clearTimeout(tooLate);
  }

  #send(order: ClawCommand): void {
    // A send error means that the process has ended, which its exit event reports.
    if (this.#child.connected) this.#child.send(order, () => undefined);
  }
}

/** With the cache of compiled code that this process uses: Node adds a folder for its version to the one that is named. */
function environment(): NodeJS.ProcessEnv {
  const folder = getCompileCacheDir();
  return folder === undefined ? process.env : { ...process.env, NODE_COMPILE_CACHE: dirname(folder) };
}
