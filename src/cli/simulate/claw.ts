import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type ClawNews, type ClawOrder, readClawNews } from "./claw-messages.ts";

const PROGRAM = fileURLToPath(new URL("./claw-process.ts", import.meta.url));
/** How long a claw may take to say its goodbyes and end. */
const STOP_PATIENCE_MS = 4_000;

export interface ClawEvents {
  onNews(news: ClawNews): void;
  /** It ended, and nobody here asked for that. `words` is the last that it wrote on its standard error. */
  onEnded(words: string): void;
}

/** The process of one claw. */
export class Claw {
  readonly pid: number | undefined;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #wanted = true;
  #words = "";

  constructor(order: ClawOrder & { readonly kind: "start" }, events: ClawEvents) {
    const child = fork(PROGRAM, [], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.#child = child;
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

  /** Ends it as a power cut would. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#wanted = false;
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  /** Lets it say goodbye for its agents and end; kills it when that takes too long. */
  async stop(): Promise<void> {
    this.#wanted = false;
    this.#send({ kind: "stop" });
    const tooLate = setTimeout(() => this.#child.kill("SIGKILL"), STOP_PATIENCE_MS);
    await this.#ended;
    clearTimeout(tooLate);
  }

  #send(order: ClawOrder): void {
    // What cannot be sent goes to a process that is gone, which is noticed by its end.
    if (this.#child.connected) this.#child.send(order, () => undefined);
  }
}
