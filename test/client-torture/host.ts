import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { HeartbeatWorkerOptions } from "harborforge-agents-client";
import { fork, spawn } from "../support/owned-process.ts";
import type { News, Order } from "./messages.ts";

export interface HostOptions {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly claw: string;
  readonly agentIds: readonly string[];
  readonly everyMs: number;
  readonly worker: boolean | HeartbeatWorkerOptions;
  readonly onProblem: (problem: string) => void;
}

export interface Sample {
  readonly bytes: number;
  readonly resources: number;
}

/** A process that uses the client library, and must not end by itself. */
export class Host implements AsyncDisposable {
  readonly name: string;
  readonly claw: string;
  readonly agentIds: readonly string[];
  /** By agent: the acknowledged instants until which the agent is exhausted. */
  readonly acknowledged = new Map<string, number[]>();
  readonly samples: Sample[] = [];
  readonly #options: HostOptions;
  readonly #child: ChildProcess;
  readonly #ready = Promise.withResolvers<void>();
  readonly #answers = new Map<number, () => void>();
  readonly #closed: Promise<void>;
  #nextId = 0;
  #ending = false;

  constructor(options: HostOptions) {
    const { name, claw, agentIds, addresses, everyMs, worker } = options;
    this.#options = options;
    this.name = name;
    this.claw = claw;
    this.agentIds = agentIds;
    this.#child = fork(
      join(import.meta.dirname, "host-process.ts"),
      [JSON.stringify({ addresses, claw, agentIds, everyMs, worker })],
      { execArgv: ["--expose-gc"], stdio: ["ignore", "pipe", "pipe", "ipc"], env: { PATH: process.env.PATH } },
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => options.onProblem(`${name} said: ${text.trim()}`));
    }
    this.#child.on("message", (news: News) => this.#hear(news));
    this.#child.on("error", (error) => options.onProblem(`${name}: ${error.message}`));
    this.#closed = once(this.#child, "close").then(([code, signal]) => {
      if (!this.#ending || code !== 0) options.onProblem(`${name} ended with ${code ?? signal}`);
      for (const answer of this.#answers.values()) answer();
      this.#ready.resolve();
    });
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  ready(): Promise<void> {
    return this.#ready.promise;
  }

  order(order: Order): void {
    if (this.#child.connected) this.#child.send(order, () => undefined);
  }

  /**
   * Stops the process for a while. Another process does it, so that it continues whatever happens to this one.
   */
  async freeze(ms: number): Promise<void> {
    const { pid } = this.#child;
    if (pid === undefined || !this.isRunning) return;
    const script = `kill -STOP ${pid}; sleep ${ms / 1_000}; kill -CONT ${pid}`;
    await once(spawn("/bin/sh", ["-c", script], { stdio: "ignore" }), "close");
  }

  /** Waits until everything works again. @returns the time that it took, undefined when it took too long */
  async probe(withinMs: number): Promise<number | undefined> {
    const begin = performance.now();
    return (await this.#ask("probe", withinMs)) ? performance.now() - begin : undefined;
  }

  async sample(withinMs: number): Promise<void> {
    await this.#ask("sample", withinMs);
  }

  /** Closes its clients and waits for its end, which nothing may delay. */
  async end(withinMs: number): Promise<void> {
    this.#ending = true;
    this.order({ kind: "end" });
    const tooLate = setTimeout(() => {
      this.#options.onProblem(`${this.name} did not end within ${withinMs} ms`);
      this.#child.kill("SIGKILL");
    }, withinMs);
    await this.#closed;
    clearTimeout(tooLate);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) {
      this.#ending = true;
      this.#child.kill("SIGKILL");
    }
    await this.#closed;
  }

  async #ask(kind: "probe" | "sample", withinMs: number): Promise<boolean> {
    this.#nextId += 1;
    const id = this.#nextId;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#answers.set(id, () => resolve(true));
    const tooLate = setTimeout(() => resolve(false), withinMs);
    this.order({ kind, id });
    const answered = await promise;
    clearTimeout(tooLate);
    this.#answers.delete(id);
    return answered && this.isRunning;
  }

  #hear(news: News): void {
    switch (news.kind) {
      case "ready":
        this.#ready.resolve();
        return;
      case "acknowledged": {
        const list = this.acknowledged.get(news.agentId) ?? [];
        list.push(news.recoveryAt);
        this.acknowledged.set(news.agentId, list);
        return;
      }
      case "refused":
        this.#options.onProblem(`${this.name}: a report of ${news.agentId} was refused: ${news.reason}`);
        return;
      case "sample":
        this.samples.push({ bytes: news.bytes, resources: news.resources });
        this.#answers.get(news.id)?.();
        return;
      case "probed":
        this.#answers.get(news.id)?.();
    }
  }
}
