import { type ChildProcess, fork } from "node:child_process";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { type ClawAtWork, goodbyePatienceMs, startClaw } from "./claw-at-work.ts";
import { type ClawNews, type ClawOrder, readClawNews } from "./claw-messages.ts";

/** A source in a checkout, compiled in the package. */
const PROGRAM = fileURLToPath(new URL(`./claw-process${extname(import.meta.url)}`, import.meta.url));
/** How long a claw may take to end, beyond its goodbyes. */
const STOP_PATIENCE_MS = 2_000;

export interface ClawEvents {
  onNews(news: ClawNews): void;
  /** It ended, and nobody here asked for that. `words` is the last that it wrote on its standard error. */
  onEnded(words: string): void;
}

/** A claw that was started. */
export interface Claw {
  /** Of its process; undefined where it has none of its own. */
  readonly pid: number | undefined;
  /** Ends it as a power cut would. Resolves when it is gone. */
  kill(): Promise<void>;
  /** Lets it say goodbye for its agents and end. */
  stop(): Promise<void>;
}

/** A claw within this process: cheap, so that there can be many. */
export class LocalClaw implements Claw {
  readonly pid = undefined;
  readonly #claw: ClawAtWork;
  #wanted = true;

  constructor(order: ClawOrder & { readonly kind: "start" }, { onNews }: ClawEvents) {
    this.#claw = startClaw(order, (news) => {
      if (this.#wanted) onNews(news);
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
  readonly #patienceMs: number;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #wanted = true;
  #words = "";

  constructor(order: ClawOrder & { readonly kind: "start" }, events: ClawEvents) {
    const child = fork(PROGRAM, [], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.#child = child;
    this.#patienceMs = goodbyePatienceMs(order.agentIds.length) + STOP_PATIENCE_MS;
    this.pid = child.pid;
    this.#ended = new Promise((resolve) => {
      child.once("exit", resolve);
      child.once("error", resolve);
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#words = `${this.#words}${text}`.slice(-500);
    });
    child.on("message", (message) => {
      const news = readClawNews(message);
      if (news !== undefined && this.#wanted) events.onNews(news);
    });
    void this.#ended.then(() => {
      if (this.#wanted) events.onEnded(this.#words.trim());
    });
    this.#send(order);
  }

  async kill(): Promise<void> {
    this.#wanted = false;
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  /** Kills it when that takes too long. */
  async stop(): Promise<void> {
    this.#wanted = false;
    this.#send({ kind: "stop" });
    const tooLate = setTimeout(() => this.#child.kill("SIGKILL"), this.#patienceMs);
    await this.#ended;
    clearTimeout(tooLate);
  }

  #send(order: ClawOrder): void {
    // What cannot be sent goes to a process that is gone, which is noticed by its end.
    if (this.#child.connected) this.#child.send(order, () => undefined);
  }
}
