import type { CallError } from "../connection/call-error.ts";
import { createServiceClients, type ServiceTarget } from "../connection/node-clients.ts";
import { Listeners, type OnListenerError, warnOf } from "../event-listeners.ts";
import type { BeatView } from "../views.ts";
import {
  type HeartbeatWorkerEvent,
  type HeartbeatWorkerOptions,
  WorkerHeartbeats,
} from "../worker/worker-heartbeats.ts";
import { type AgentHandle, type AgentHost, BeatingAgent } from "./agent-handle.ts";
import type { BeatContent, Settle } from "./beat-queue.ts";
import { checkName } from "./check-name.ts";
import { type ClawHeartbeats, ClawStreams } from "./claw-streams.ts";
import type { HeartbeatConnection } from "./heartbeat-stream.ts";

const CLOSE_WITHIN_MS = 5_000;

export interface HeartbeatClientOptions extends ServiceTarget {
  /** The claw that the agents live in: beats for agents of another are refused. 1 to 128 characters. */
  readonly claw: string;
  /**
   * Names this process, so that of two of its streams the newer one counts. Anew at each start. Default: a random UUID.
   */
  readonly instanceId?: string;
  /** Takes what a listener threw, or what its promise was rejected with. Default: a warning of the process. */
  readonly onListenerError?: OnListenerError;
  /**
   * Whether a worker thread beats, which goes on while the event loop of the main thread is blocked, for as long as
   * `mainThreadTimeoutMs` says. With `address` or `addresses` only. Default: false, the main thread beats.
   */
  readonly worker?: boolean | HeartbeatWorkerOptions;
}

export interface HeartbeatClientEvents {
  /** How the connection stands, of each stream where there are several. */
  readonly connection: HeartbeatConnection;
  /** What becomes of the worker thread, where one beats. */
  readonly worker: HeartbeatWorkerEvent;
}

export interface ClientCloseOptions {
  /** Whether the agents say goodbye, or keep their leases for who comes next. Default: they do. */
  readonly goodbye?: boolean;
  /** How long it may take until reports and goodbyes are acknowledged, in milliseconds. Default: 5 s. */
  readonly withinMs?: number;
}

/** The heartbeats of one claw. */
export interface HeartbeatClient extends AsyncDisposable {
  /** Names the claw's process. */
  readonly instanceId: string;
  /**
   * The agent with this id, which beats from now on. Asked for again it is the same.
   *
   * @throws RangeError for what is no `agent_id`: 1 to 128 characters, no control characters
   */
  agent(agentId: string): AgentHandle;
  /** @returns what ends the listening */
  on<Name extends keyof HeartbeatClientEvents>(
    name: Name,
    listener: (event: HeartbeatClientEvents[Name]) => void,
  ): () => void;
  /** Sends what is not acknowledged yet, says goodbye, and ends. Never rejects; may be repeated. */
  close(options?: ClientCloseOptions): Promise<void>;
}

/**
 * Keeps the agents of a claw alive, all on one stream (or on several, where there are more than the service lets one
 * have). Beats at the server's pace, sends reports at once, adopts what services set, and goes on over lost connections,
 * stopping servers and sleeping laptops. Nothing is connected before the first agent.
 *
 * @example
 * await using claw = createHeartbeatClient({ address: "127.0.0.1:50051", claw: "claw-1" });
 * const bob = claw.agent("bob-1");
 * bob.on("status", ({ status }) => console.log(`bob-1 is ${status}`));
 * await bob.busy();
 *
 * @throws RangeError for what is no address or no name of a claw, and for a worker with a transport
 */
export function createHeartbeatClient(options: HeartbeatClientOptions): HeartbeatClient {
  return new ClawHeartbeatClient(options);
}

class ClawHeartbeatClient implements HeartbeatClient, AgentHost {
  readonly instanceId: string;
  readonly #onListenerError: OnListenerError;
  readonly #events: {
    readonly [Name in keyof HeartbeatClientEvents]: Listeners<HeartbeatClientEvents[Name]>;
  };
  readonly #agents = new Map<string, BeatingAgent>();
  readonly #beats: ClawHeartbeats;
  #closing: Promise<void> | undefined;

  constructor(options: HeartbeatClientOptions) {
    const { claw, worker = false, onListenerError = warnOf, ...target } = options;
    this.instanceId = options.instanceId ?? crypto.randomUUID();
    checkName("claw", claw);
    checkName("instanceId", this.instanceId);
    // Complains of a wrong address here, where its author sees it.
    createServiceClients(target).close();
    this.#onListenerError = onListenerError;
    this.#events = { connection: new Listeners(onListenerError), worker: new Listeners(onListenerError) };
    const { instanceId } = this;
    const listener = {
      onBeat: (beat: BeatView, stays: boolean): void => this.#agents.get(beat.agentId)?.receive(beat, stays),
      onConnection: (connection: HeartbeatConnection): void => this.#events.connection.emit(connection),
      onStreamRefused: (agentIds: readonly string[], error: CallError): void => {
        for (const agentId of agentIds) this.#agents.get(agentId)?.fail("STREAM_REFUSED", error.message, error);
      },
      onWorker: (event: HeartbeatWorkerEvent): void => this.#events.worker.emit(event),
    };
    // By the clock, so that a process that was given the name of the one before it comes after that.
    const generation = BigInt(Date.now()) * 1_000n;
    this.#beats =
      worker === false
        ? new ClawStreams({ target, claw, instanceId, generation, listener })
        : new WorkerHeartbeats({ target, claw, instanceId, worker: worker === true ? {} : worker, listener });
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  agent(agentId: string): AgentHandle {
    const present = this.#agents.get(agentId);
    if (present !== undefined) return present;
    checkName("agentId", agentId);
    const agent = new BeatingAgent(agentId, this, this.#onListenerError);
    agent.claim();
    return agent;
  }

  on<Name extends keyof HeartbeatClientEvents>(
    name: Name,
    listener: (event: HeartbeatClientEvents[Name]) => void,
  ): () => void {
    return this.#events[name].add(listener);
  }

  close({ goodbye = true, withinMs = CLOSE_WITHIN_MS }: ClientCloseOptions = {}): Promise<void> {
    this.#closing ??= this.#end(goodbye, withinMs);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  add(agent: BeatingAgent): void {
    const { agentId } = agent;
    const other = this.#agents.get(agentId);
    if (other !== undefined && other !== agent) throw new RangeError(`${agentId} left, and was asked for again since`);
    this.#agents.set(agentId, agent);
    this.#beats.add(agentId, agent.session);
  }

  report(agent: BeatingAgent, content: BeatContent, settle: Settle): void {
    this.#beats.report(agent.agentId, content, settle);
  }

  remove(agent: BeatingAgent): void {
    const { agentId } = agent;
    if (this.#agents.get(agentId) !== agent) return;
    this.#agents.delete(agentId);
    this.#beats.remove(agentId);
  }

  retryLater(agent: BeatingAgent): void {
    if (!this.closed) this.#beats.retryLater(agent.agentId, agent.session);
  }

  async #end(goodbye: boolean, withinMs: number): Promise<void> {
    if (goodbye) for (const agent of this.#agents.values()) agent.depart();
    await this.#beats.end({ goodbye, withinMs });
    for (const agent of this.#agents.values()) agent.end();
    this.#agents.clear();
  }
}
