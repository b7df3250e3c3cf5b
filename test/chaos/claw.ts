import { type ConnectedClients, createServiceClients } from "harborforge-agents-client";
import { HeartbeatStream } from "harborforge-agents-client/internal";
import { FaultProxy } from "../support/fault-proxy.ts";
import type { FaultLog, Stop } from "./fault-log.ts";
import type { Ledger } from "./ledger.ts";
import type { Random } from "./random.ts";

/** A claw claims an agent again after this time when one of its own former processes took it. */
const CLAIM_AGAIN_MS = 200;
const GOODBYE_MS = 2_000;

/** One process of a claw: a stream on a connection of its own. */
interface Seat {
  readonly name: string;
  readonly clients: ConnectedClients;
  readonly stream: HeartbeatStream;
}

export interface ClawOptions {
  readonly index: number;
  readonly identifier: string;
  readonly agentIds: readonly string[];
  /** Ports of the replicas that serve. */
  readonly routes: () => readonly number[];
  readonly ledger: Ledger;
  readonly log: FaultLog;
}

/**
 * A claw with the real client, behind a proxy of its own. Its processes are streams that can end without a
 * goodbye.
 */
export class Claw implements AsyncDisposable {
  readonly index: number;
  readonly identifier: string;
  readonly agentIds: readonly string[];
  readonly proxy: FaultProxy;
  readonly #options: ClawOptions;
  readonly #refusals = new Map<string, number>();
  #seats = 0;
  #seat: Seat | undefined;
  #stop: Stop | undefined;

  private constructor(options: ClawOptions, proxy: FaultProxy) {
    this.#options = options;
    this.index = options.index;
    this.identifier = options.identifier;
    this.agentIds = options.agentIds;
    this.proxy = proxy;
  }

  static async open(options: ClawOptions): Promise<Claw> {
    return new Claw(options, await FaultProxy.open(options.routes, options.index));
  }

  get running(): boolean {
    return this.#seat !== undefined;
  }

  /** The number of beats that the server rejected, by reason. */
  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals;
  }

  start(): void {
    if (this.#seat !== undefined) return;
    if (this.#stop !== undefined) this.#stop.until = Date.now();
    this.#stop = undefined;
    this.#seat = this.#sit();
  }

  /** Ends it like a power failure: connections break, and no agent says goodbye. */
  async kill(): Promise<void> {
    const seat = this.#seat;
    if (seat === undefined) return;
    this.#seat = undefined;
    this.proxy.drop();
    this.#stop = this.#options.log.stopped(this.index, "killed");
    await end(seat);
  }

  /** Its agents say goodbye, and it ends. */
  async leave(): Promise<void> {
    const seat = this.#seat;
    if (seat === undefined) return;
    this.#seat = undefined;
    this.#stop = this.#options.log.stopped(this.index, "left");
    await seat.stream.close({ goodbyeWithinMs: GOODBYE_MS });
    seat.clients.close();
  }

  /** Its messages do not arrive, though it continues to send them. */
  silence(): void {
    this.proxy.swallow();
    this.#stop = this.#options.log.stopped(this.index, "silenced");
  }

  unsilence(): void {
    this.proxy.mend();
    if (this.#stop !== undefined) this.#stop.until = Date.now();
    this.#stop = undefined;
  }

  /**
   * A second process takes the agents over while the first still beats; the first ends after a while, without a
   * goodbye.
   */
  async takeOver(firstEndsAfter: Promise<unknown>): Promise<void> {
    const first = this.#seat;
    this.#seat = this.#sit();
    await firstEndsAfter;
    if (first !== undefined) await end(first);
  }

  /** One of its agents, chosen at random, reports a new status. */
  chatter(random: Random): void {
    const agentId = random.pick(this.agentIds);
    const status = random.pick(["idle", "on_call", "busy", "busy", "idle", "exhausted"] as const);
    if (status !== "exhausted") this.#seat?.stream.report(agentId, status);
    else {
      const retryAfterMs = Math.round(random.between(500, 4_000));
      this.#seat?.stream.report(agentId, { exhausted: { reason: "rate_limit", retryAfterMs } });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const seat = this.#seat;
    this.#seat = undefined;
    if (seat !== undefined) await end(seat);
    await this.proxy[Symbol.asyncDispose]();
  }

  #sit(): Seat {
    const { identifier, agentIds, ledger, log } = this.#options;
    const name = `${identifier}/${++this.#seats}`;
    const clients = createServiceClients({ address: this.proxy.address });
    const { isAnswered, reconnect } = clients;
    const stream: HeartbeatStream = new HeartbeatStream({
      clients: { agents: ledger.tap(clients.agents, name), isAnswered, reconnect },
      clawIdentifier: identifier,
      instanceId: name,
      onMessage: (message) => {
        if (message.kind !== "result" || message.refusal === undefined) return;
        const { agentId, refusal } = message;
        const reason = refusal.reason ?? "UNKNOWN";
        this.#refusals.set(reason, (this.#refusals.get(reason) ?? 0) + 1);
        // A claim that was stuck in a stalled replica may take the agent from the process that replaced it: it
        // claims again.
        setTimeout(() => {
          if (this.#seat === seat) stream.add(agentId, { start: "anew" });
        }, CLAIM_AGAIN_MS).unref();
      },
    });
    const seat: Seat = { name, clients, stream };
    stream.done.catch((error: unknown) => log.accident(`the stream of ${name} cannot go on: ${String(error)}`));
    for (const agentId of agentIds) stream.add(agentId);
    return seat;
  }
}

async function end({ stream, clients }: Seat): Promise<void> {
  const closing = stream.close();
  clients.close();
  await closing;
}
