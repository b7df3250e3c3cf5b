import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { watchAgents } from "harborforge-agents-client";
import type { AgentRow } from "./transition-log.ts";

/** How long the watcher may take for the last changes. */
const WITHIN_MS = 30_000;

/** A client that watches the fleet through whichever replica serves, and remembers what it was told. */
export class FleetWatcher implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #stop = new AbortController();
  readonly #fleet = new Map<string, string>();
  readonly #problems: string[] = [];
  #newest = 0n;
  #unknown = 0;
  #done: Promise<void> = Promise.resolve();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(routes: () => readonly number[]): Promise<FleetWatcher> {
    const server = createServer();
    const watcher = new FleetWatcher(server);
    let turn = 0;
    server.on("connection", (socket) => {
      const ports = routes();
      const port = ports[turn++ % Math.max(1, ports.length)];
      if (port === undefined) return void socket.destroy();
      watcher.#join(socket, connect({ host: "127.0.0.1", port }));
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const address = server.address();
    if (typeof address !== "object" || address === null) throw new TypeError("the watcher's route has no port");
    watcher.#done = watcher.#follow(`127.0.0.1:${address.port}`);
    return watcher;
  }

  /** Changes whose cause its replica did not know. */
  get unknownCauses(): number {
    return this.#unknown;
  }

  /** What it was told wrong, one sentence each, after it has heard of the last change of `agents`. */
  async finish(agents: readonly AgentRow[]): Promise<string[]> {
    const last = agents.reduce((newest, { revision }) => (revision > newest ? revision : newest), 0n);
    const deadline = performance.now() + WITHIN_MS;
    while (this.#newest < last && performance.now() < deadline) await new Promise((go) => setTimeout(go, 20));
    if (this.#newest < last)
      this.#problems.push(`the watcher heard of revision ${this.#newest}, the last one is ${last}`);
    for (const { agentId, status, revision } of agents) {
      const told = this.#fleet.get(agentId);
      const stored = `${status} @${revision}`;
      if (told !== stored) this.#problems.push(`the watcher knows ${agentId} as ${told}, it is ${stored}`);
    }
    return this.#problems;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #join(...ends: readonly [Socket, Socket]): void {
    const [one, other] = ends;
    for (const socket of ends) {
      this.#sockets.add(socket);
      // The other end notices.
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        for (const end of ends) end.destroy();
      });
    }
    one.pipe(other).pipe(one);
  }

  async #follow(address: string): Promise<void> {
    try {
      for await (const event of watchAgents({ address, signal: this.#stop.signal })) {
        if (event.kind === "snapshot") {
          this.#fleet.clear();
          for (const { agentId, status, revision } of event.agents) this.#fleet.set(agentId, `${status} @${revision}`);
          this.#newest = event.revision;
        } else if (event.kind === "changes") {
          for (const { agent, transition } of event.changes) {
            if (transition.revision <= this.#newest)
              this.#problems.push(`the watcher got revision ${transition.revision} after ${this.#newest}`);
            this.#newest = transition.revision;
            if (transition.cause === "unknown") this.#unknown += 1;
            this.#fleet.set(agent.agentId, `${agent.status} @${agent.revision}`);
          }
        }
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#problems.push(`the watch ended: ${String(error)}`);
    }
  }
}
