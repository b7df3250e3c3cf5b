import { CallError } from "../connection/call-error.ts";
import { CALL_TIMEOUT_MS } from "../connection/call-timeout.ts";
import { createServiceClients, type ServiceTarget } from "../connection/node-clients.ts";
import { Listeners, type OnListenerError, reportTo, warnOf } from "../event-listeners.ts";
import type { ClawMessageView } from "../views.ts";
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
import type { ReportErrorDetails } from "./report-error.ts";

const CLOSE_WITHIN_MS = 5_000;

export interface HeartbeatClientOptions extends ServiceTarget {
  /** The claw of the agents. The service rejects beats for agents of another claw. 1 to 128 characters. */
  readonly claw: string;
  /**
   * Names this process. The service prefers the newer of two streams with one name. Use a new name at each start. Default: a
   * random UUID.
   */
  readonly instanceId?: string;
  /**
   * Called with the error that a listener throws, or that its promise rejects with, and with other errors that no listener gets.
   * Default: a warning of the process.
   */
  readonly onListenerError?: OnListenerError;
  /**
   * Whether a worker thread sends the beats. It goes on while the event loop of the main thread is blocked, for up to
   * `mainThreadTimeoutMs`. Needs `address` or `addresses`. Default: false, the main thread sends them.
   */
  readonly worker?: boolean | HeartbeatWorkerOptions;
}

export interface HeartbeatClientEvents {
  /**
   * The state of the connection, for each stream if there are several. If no listener is added, and the client gets no connection within
   * `timeoutMs`, it warns once by `onListenerError`.
   */
  readonly connection: HeartbeatConnection;
  /** The state of the worker thread, if there is one. */
  readonly worker: HeartbeatWorkerEvent;
}

export interface ClientCloseOptions {
  /** Whether to send goodbyes. Without them the leases run on, for the process that comes next. Default: true. */
  readonly goodbye?: boolean;
  /** How long to wait for the acknowledgement of reports and goodbyes, in milliseconds. Default: 5,000. */
  readonly withinMs?: number;
}

/** The heartbeats of one claw. */
export interface HeartbeatClient extends AsyncDisposable {
  /** The name of this process. */
  readonly instanceId: string;
  /**
   * Starts beats for the agent with this id. The same id returns the same handle.
   *
   * @throws RangeError unless the id has 1 to 128 characters, without control characters
   */
  agent(agentId: string): AgentHandle;
  /** @returns a function that removes the listener */
  on<Name extends keyof HeartbeatClientEvents>(
    name: Name,
    listener: (event: HeartbeatClientEvents[Name]) => void,
  ): () => void;
  /** Sends what is not acknowledged yet, and the goodbyes, and ends. Never rejects; may be called again. */
  close(options?: ClientCloseOptions): Promise<void>;
}

/**
 * Creates the heartbeats of a claw's agents. They share one stream, or several if the service allows fewer agents on one. The
 * client beats at the pace of the server, sends reports at once, and takes over the status that services set. It continues after
 * lost connections, server stops and machine sleep. It connects with the first agent.
 *
 * @example
 * const claw = createHeartbeatClient({ address: "127.0.0.1:50051", claw: "claw-1" });
 * const bob = claw.agent("bob-1");
 * bob.on("status", ({ status }) => console.log(`bob-1 is ${status}`));
 * await bob.busy();
 * await claw.close();
 *
 * @throws RangeError for an invalid address, claw or timeout, and for a worker with a transport
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
  readonly #timeoutMs: number;
  /** Whether the service has acknowledged a beat. */
  #wasConnected = false;
  /** Why the last attempt failed. */
  #lastError: CallError | undefined;
  /** Ends the wait for the first connection, which begins with the first agent. */
  #endFirstWait: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: HeartbeatClientOptions) {
    const { claw, worker = false, onListenerError = warnOf, ...target } = options;
    this.instanceId = options.instanceId ?? crypto.randomUUID();
    this.#timeoutMs = target.timeoutMs ?? CALL_TIMEOUT_MS;
    checkName("claw", claw);
    checkName("instanceId", this.instanceId);
    // Throws for an invalid address here, where the caller sees it.
    createServiceClients(target).close();
    this.#onListenerError = onListenerError;
    this.#events = { connection: new Listeners(onListenerError), worker: new Listeners(onListenerError) };
    const { instanceId } = this;
    const listener = {
      onMessage: (message: ClawMessageView, stays: boolean): void =>
        this.#agents.get(message.agentId)?.receive(message, stays),
      onConnection: (connection: HeartbeatConnection): void => {
        if (connection.state === "connected") this.#wasConnected = true;
        else this.#lastError = connection.error ?? this.#lastError;
        this.#events.connection.emit(connection);
      },
      onStreamRefused: (agentIds: readonly string[], error: CallError): void => {
        const { code, metadata, retryAfterMs } = error;
        const details = { code, reason: "STREAM_REFUSED", metadata, retryAfterMs, cause: error } as const;
        for (const agentId of agentIds) this.#agents.get(agentId)?.fail(error.message, details);
      },
      onWorker: (event: HeartbeatWorkerEvent): void => this.#events.worker.emit(event),
    };
    // From the clock, so that a process with the same name as an earlier one has greater generations.
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
    if (other !== undefined && other !== agent)
      throw new RangeError(`agent ${agentId} left, and agent() was called for it again. Use the new handle.`);
    this.#agents.set(agentId, agent);
    this.#beats.add(agentId, agent.session);
    this.#endFirstWait ??= this.onNotConnected((message, details) => {
      if (this.#events.connection.size === 0) reportTo(this.#onListenerError, new CallError(message, details));
    });
  }

  onNotConnected(callback: (message: string, details: ReportErrorDetails) => void): () => void {
    if (this.#wasConnected || this.#timeoutMs === 0) return () => undefined;
    const timer = setTimeout(() => {
      if (this.#wasConnected || this.closed) return;
      const {
        code = "UNAVAILABLE",
        metadata = {},
        retryAfterMs,
        message = "the service acknowledged nothing",
      } = this.#lastError ?? {};
      callback(`not connected within ${this.#timeoutMs} ms: ${message}. The client goes on trying.`, {
        code,
        reason: "NOT_CONNECTED",
        metadata,
        retryAfterMs,
        cause: this.#lastError,
      });
    }, this.#timeoutMs);
    return () => clearTimeout(timer);
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
    this.#endFirstWait?.();
    if (goodbye) for (const agent of this.#agents.values()) agent.depart();
    await this.#beats.end({ goodbye, withinMs });
    for (const agent of this.#agents.values()) agent.end();
    this.#agents.clear();
  }
}
