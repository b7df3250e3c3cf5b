import type { CallError } from "../connection/call-error.ts";
import { createServiceClients, type ServiceTarget } from "../connection/node-clients.ts";
import type { ConnectedClients } from "../connection/service-clients.ts";
import type { ClawMessageView } from "../views.ts";
import type { AgentClaim, AgreedState, BeatContent, QueueEntry, Settle } from "./beat-queue.ts";
import { type HeartbeatConnection, HeartbeatStream } from "./heartbeat-stream.ts";

/** The client tries a rejected agent again after this time, plus or minus a quarter. */
const RETRY_REFUSED_MS = 60_000;

export interface EndOptions {
  /** Whether to send goodbyes. */
  readonly goodbye: boolean;
  /** How long to wait for the acknowledgement of reports and goodbyes, in milliseconds. */
  readonly withinMs: number;
}

/** The heartbeats of a claw: streams in this thread, or in a worker. */
export interface ClawHeartbeats {
  /**
   * Starts the agent's beats, on a stream that has room.
   *
   * @param claim why it beats. Becomes `resume` when the service has accepted it
   */
  add(agentId: string, claim: AgentClaim): void;
  /** Sends a report or the goodbye of an agent that beats. */
  report(agentId: string, content: BeatContent, settle: Settle): void;
  /** Ends the agent's beats. */
  remove(agentId: string): void;
  /** Starts the beats of a rejected agent again later. */
  retryLater(agentId: string, claim: AgentClaim): void;
  /** Sends what is not acknowledged, and ends. Never rejects. */
  end(options: EndOptions): Promise<void>;
}

/** Receives the messages of the service. Must not throw. */
export interface ClawListener {
  /** @param stays whether the agent still beats on its stream */
  onMessage(message: ClawMessageView, stays: boolean): void;
  onConnection(connection: HeartbeatConnection): void;
  /** The service rejects the stream of these agents, and a retry does not help. */
  onStreamRefused(agentIds: readonly string[], error: CallError): void;
}

export interface ClawStreamsOptions {
  readonly target: ServiceTarget;
  readonly claw: string;
  readonly instanceId: string;
  /** The generations of the streams are greater than this. */
  readonly generation: bigint;
  readonly listener: ClawListener;
}

/** The heartbeat streams of a claw: one, or several if it has more agents than the service allows on one. */
export class ClawStreams implements ClawHeartbeats {
  readonly #options: ClawStreamsOptions;
  readonly #streams = new Map<HeartbeatStream, ConnectedClients>();
  readonly #streamOf = new Map<string, HeartbeatStream>();
  readonly #refused = new Map<string, AgentClaim>();
  /** The agents that other processes took from a stream. Only a stream that is opened later can get them back. */
  readonly #lost = new WeakMap<HeartbeatStream, Set<string>>();
  #retry: ReturnType<typeof setTimeout> | undefined;
  #generation: bigint;
  #isSuspended = false;
  #isEnding = false;

  constructor(options: ClawStreamsOptions) {
    this.#options = options;
    this.#generation = options.generation;
  }

  add(agentId: string, claim: AgentClaim, agreed?: AgreedState): void {
    this.#refused.delete(agentId);
    let stream = this.#streamOf.get(agentId);
    stream ??= [...this.#streams.keys()].find((one) => one.hasRoom && !this.#lost.get(one)?.has(agentId));
    stream ??= this.#openStream();
    this.#streamOf.set(agentId, stream);
    stream.add(agentId, claim, agreed);
    for (const one of [...this.#streams.keys()]) this.#retire(one);
  }

  /** @param knownRevision the newest revision that the agent knew. Default: the newest that the service has sent */
  report(agentId: string, content: BeatContent, settle: Settle, knownRevision?: bigint): void {
    this.#streamOf.get(agentId)?.report(agentId, content, settle, knownRevision);
  }

  /** The newest revision of an agent that the service has sent; 0 before the first. */
  knownRevision(agentId: string): bigint {
    return this.#streamOf.get(agentId)?.knownRevision(agentId) ?? 0n;
  }

  remove(agentId: string): void {
    this.#refused.delete(agentId);
    this.#leaveStream(agentId);
  }

  retryLater(agentId: string, claim: AgentClaim): void {
    if (this.#isEnding) return;
    this.#refused.set(agentId, claim);
    this.#retry ??= setTimeout(
      () => {
        this.#retry = undefined;
        for (const [one, its] of [...this.#refused]) this.add(one, its);
      },
      RETRY_REFUSED_MS * (0.75 + Math.random() / 2),
    );
  }

  /** Sends nothing until `resume`, so that leases expire. */
  suspend(): void {
    this.#isSuspended = true;
    for (const stream of this.#streams.keys()) stream.suspend();
  }

  resume(): void {
    this.#isSuspended = false;
    for (const stream of this.#streams.keys()) stream.resume();
  }

  async end({ goodbye, withinMs }: EndOptions): Promise<void> {
    this.#isEnding = true;
    clearTimeout(this.#retry);
    this.#refused.clear();
    const how = goodbye ? { goodbyeWithinMs: withinMs } : { reportsWithinMs: withinMs };
    await Promise.all([...this.#streams.keys()].map((stream) => stream.close(how)));
    for (const clients of this.#streams.values()) clients.close();
    this.#streamOf.clear();
    this.#streams.clear();
  }

  #openStream(): HeartbeatStream {
    const { target, claw, instanceId, listener } = this.#options;
    const clients = createServiceClients(target);
    const stream: HeartbeatStream = new HeartbeatStream({
      clients,
      clawIdentifier: claw,
      instanceId,
      nextGeneration: () => ++this.#generation,
      persistent: true,
      onMessage: (message) => this.#pass(stream, message),
      // For the service this is a new stream.
      onStream: () => this.#lost.delete(stream),
      onConnection: (connection) => {
        if (connection.state === "waiting" && connection.error?.permanent === true) {
          const agentIds = [...this.#streamOf].filter(([, one]) => one === stream).map(([agentId]) => agentId);
          listener.onStreamRefused(agentIds, connection.error);
        }
        listener.onConnection(connection);
      },
      onSurplus: (entries) => this.#move(entries),
    });
    if (this.#isSuspended) stream.suspend();
    this.#streams.set(stream, clients);
    return stream;
  }

  /** Moves agents to a newer stream. The service prefers the newer one, in whatever order it reads them. */
  #move(entries: readonly QueueEntry[]): void {
    const stream = this.#openStream();
    for (const { agentId } of entries) this.#streamOf.set(agentId, stream);
    stream.adopt(entries);
  }

  #pass(stream: HeartbeatStream, message: ClawMessageView): void {
    const { agentId } = message;
    if (this.#streamOf.get(agentId) !== stream) return;
    const stays = stream.has(agentId);
    if (!stays) {
      if (message.kind === "result" && message.refusal?.reason === "SESSION_SUPERSEDED") {
        this.#lost.set(stream, (this.#lost.get(stream) ?? new Set()).add(agentId));
      }
      this.#leaveStream(agentId);
    }
    this.#options.listener.onMessage(message, stays);
  }

  #leaveStream(agentId: string): void {
    const stream = this.#streamOf.get(agentId);
    this.#streamOf.delete(agentId);
    if (stream !== undefined) this.#retire(stream);
  }

  /** Closes a stream without agents, except the last one, which the next agent can use. */
  #retire(stream: HeartbeatStream): void {
    if (stream.size > 0 || this.#streams.size === 1 || this.#isEnding) return;
    const clients = this.#streams.get(stream);
    this.#streams.delete(stream);
    void stream.close().then(() => clients?.close());
  }
}
