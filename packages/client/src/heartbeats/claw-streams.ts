import type { CallError } from "../connection/call-error.ts";
import { createServiceClients, type ServiceTarget } from "../connection/node-clients.ts";
import type { ConnectedClients } from "../connection/service-clients.ts";
import type { BeatView } from "../views.ts";
import type { AgentClaim, AgreedState, BeatContent, QueueEntry, Settle } from "./beat-queue.ts";
import { type HeartbeatConnection, HeartbeatStream } from "./heartbeat-stream.ts";

/** Agents that the service refuses are tried again after this, give or take a quarter. */
const RETRY_REFUSED_MS = 60_000;

export interface EndOptions {
  /** Whether the agents say goodbye. */
  readonly goodbye: boolean;
  /** How long reports and goodbyes may take to be acknowledged, in milliseconds. */
  readonly withinMs: number;
}

/** What beats for the agents of a claw: streams in this thread, or in a worker. */
export interface ClawHeartbeats {
  /**
   * Lets the agent beat, on whichever stream has room.
   *
   * @param claim why it beats. Becomes `resume` when the service has taken it in
   */
  add(agentId: string, claim: AgentClaim): void;
  /** Says something of an agent that beats. */
  report(agentId: string, content: BeatContent, settle: Settle): void;
  /** Lets the agent beat no more. */
  remove(agentId: string): void;
  /** Lets an agent that the service refused beat again later. */
  retryLater(agentId: string, claim: AgentClaim): void;
  /** Sends what is not acknowledged, and ends. Never rejects. */
  end(options: EndOptions): Promise<void>;
}

/** Told what the service says. Must not throw. */
export interface ClawListener {
  /** @param stays whether the agent still beats on its stream */
  onBeat(beat: BeatView, stays: boolean): void;
  onConnection(connection: HeartbeatConnection): void;
  /** The service refuses the stream of these agents in a way that stays. */
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

/** The heartbeat streams of a claw: one, or several where there are more agents than the service lets one have. */
export class ClawStreams implements ClawHeartbeats {
  readonly #options: ClawStreamsOptions;
  readonly #streams = new Map<HeartbeatStream, ConnectedClients>();
  readonly #streamOf = new Map<string, HeartbeatStream>();
  readonly #refused = new Map<string, AgentClaim>();
  /** Which agents others took from a stream. It never gets them back: only one that was opened after that does. */
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

  /** @param knownRevision what the agent knew when it spoke. Default: all that the service has told */
  report(agentId: string, content: BeatContent, settle: Settle, knownRevision?: bigint): void {
    this.#streamOf.get(agentId)?.report(agentId, content, settle, knownRevision);
  }

  /** The newest revision of an agent that the service has told; 0 before it has told any. */
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

  /** Says nothing more, so that leases run out, until `resume`. */
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
      onBeat: (beat) => this.#receive(stream, beat),
      onConnection: (connection) => {
        // To the service it is another stream.
        if (connection.state === "connected") this.#lost.delete(stream);
        if (connection.state === "waiting" && connection.error?.hopeless === true) {
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

  /** To a stream that is newer than the one that had them: so it wins, whichever is heard first. */
  #move(entries: readonly QueueEntry[]): void {
    const stream = this.#openStream();
    for (const { agentId } of entries) this.#streamOf.set(agentId, stream);
    stream.adopt(entries);
  }

  #receive(stream: HeartbeatStream, beat: BeatView): void {
    const { agentId } = beat;
    if (this.#streamOf.get(agentId) !== stream) return;
    const stays = stream.has(agentId);
    if (!stays) {
      if (beat.refusal?.reason === "SESSION_SUPERSEDED") {
        this.#lost.set(stream, (this.#lost.get(stream) ?? new Set()).add(agentId));
      }
      this.#leaveStream(agentId);
    }
    this.#options.listener.onBeat(beat, stays);
  }

  #leaveStream(agentId: string): void {
    const stream = this.#streamOf.get(agentId);
    this.#streamOf.delete(agentId);
    if (stream !== undefined) this.#retire(stream);
  }

  /** A stream that has nobody left is closed, unless it is the only one: the next agent would open it again. */
  #retire(stream: HeartbeatStream): void {
    if (stream.size > 0 || this.#streams.size === 1 || this.#isEnding) return;
    const clients = this.#streams.get(stream);
    this.#streams.delete(stream);
    void stream.close().then(() => clients?.close());
  }
}
