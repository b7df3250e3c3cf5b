import type { MessageInitShape } from "@bufbuild/protobuf";
import { millisOf } from "../../../../common/contract/timestamps.ts";
import { LONGEST_TIMER_MS, pause } from "../../../../common/scheduling/timers.ts";
import type {
  HeartbeatRequestSchema,
  HeartbeatResponse,
} from "../../../../gen/client/harborforge/agents/v1/agent_service_pb.ts";
import { type CallError, callErrorOf } from "../connection/call-error.ts";
import { createRetryPause } from "../connection/retry-pause.ts";
import type { ConnectedClients } from "../connection/service-clients.ts";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";
import { type ClawMessageView, messagesOf } from "../views.ts";
import {
  type AgentClaim,
  type AgreedState,
  type BeatContent,
  BeatQueue,
  type MessageLimits,
  type QueueEntry,
  type Settle,
} from "./beat-queue.ts";

/** Values until the first response of the server. */
const INTERVAL_MS = 10_000;
const LIMITS: MessageLimits = { beats: 1_000, bytes: 1_048_576 };
/** The claw, the process, its generation and the sequence, each at its longest. */
const ENVELOPE_BYTES = 1_152;
/**
 * The server sends its first response before it gets a message. A server that does not is suspended, mostly, and the client must
 * find another one while leases run. The first attempt waits briefly, further ones longer, since the network may be slow.
 */
const SHORTEST_FIRST_RESPONSE_TIMEOUT_MS = 1_000;
const LONGEST_FIRST_RESPONSE_TIMEOUT_MS = 5_000;
const FIRST_RESPONSES_PER_LEASE = 4;
/**
 * The connection is dead if the server acknowledges no beat for this share of the interval, and then answers no health check on
 * the same connection for as long. So another connection carries the beat within two thirds of the lease. A server without its
 * database answers health checks and acknowledges nothing; its streams stay.
 */
const UNANSWERED_SHARE = 1 / 3;
const LONGEST_UNANSWERED_MS = 5_000;
/** How many times in an interval the client checks the connection, within these bounds. */
const LOOKS_PER_INTERVAL = 50;
const SHORTEST_LOOK_MS = 100;
const LONGEST_LOOK_MS = 1_000;
/** A check that comes later than this, and than an interval, shows that the machine slept. Its connection may have ended silently. */
const SHORTEST_SLEEP_MS = 2_000;

/**
 * The state of the connection to the service. It is connected once the service has acknowledged a beat: a service without its
 * database accepts connections, and acknowledges nothing.
 */
export type HeartbeatConnection =
  | { readonly state: "connected"; readonly intervalMs: number; readonly leaseMs: number }
  | { readonly state: "waiting"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface HeartbeatStreamOptions {
  /** If these can check their connection and open another one, the stream leaves a dead connection. */
  readonly clients: Pick<ConnectedClients, "agents"> & Partial<Pick<ConnectedClients, "isAnswered" | "reconnect">>;
  /** The claw of the agents. The server rejects beats for agents of another claw. */
  readonly clawIdentifier: string;
  /** The name of this process, new at each start. */
  readonly instanceId: string;
  /** Numbers the streams of this process if it has several. Each number must be greater than those before. */
  readonly nextGeneration?: () => bigint;
  /** Whether to retry a stream that the server rejects for good. Default: false. */
  readonly persistent?: boolean;
  /** A message of the server about an agent: its first state, a change by another caller, a rejected beat. */
  readonly onMessage?: (message: ClawMessageView) => void;
  readonly onConnection?: (connection: HeartbeatConnection) => void;
  /** The server sent the first response of a stream. */
  readonly onStream?: () => void;
  /** Takes the agents beyond the limit of the server, with their reports. */
  readonly onSurplus?: (entries: readonly QueueEntry[]) => void;
}

export interface CloseOptions {
  /** How long to wait for the acknowledgement of goodbyes. Without this, no goodbyes are sent, and the leases run on. */
  readonly goodbyeWithinMs?: number;
  /** How long to wait, without goodbyes, for the acknowledgement of all reports. */
  readonly reportsWithinMs?: number;
}

/** How a stream ended. */
interface End {
  /** Undefined if the server asked for a new stream. */
  readonly error: CallError | undefined;
  /** Whether the next stream starts at once: this one did not fail, and leases run on. */
  readonly atOnce: boolean;
}

/**
 * The heartbeats of many agents on one stream. It beats at the server's pace, sends reports at once, reopens the stream when it
 * ends, and repeats what is not acknowledged. It starts when it is created, and ends with `close`.
 *
 * It removes an agent for which the server rejects beats (taken over, unknown, of another claw) after calling `onMessage`. The agent
 * may be added again.
 */
export class HeartbeatStream {
  /**
   * Resolves when the stream is closed. Rejects with a CallError if the server rejects the stream for good, unless it is
   * persistent.
   */
  readonly done: Promise<void>;

  readonly #options: HeartbeatStreamOptions;
  readonly #queue = new BeatQueue();
  readonly #stop = new AbortController();
  /** Ends the pause before the next stream: goodbyes do not wait for it. */
  readonly #skipPause = new AbortController();
  readonly #retry = createRetryPause();
  readonly #nextGeneration: () => bigint;
  #generation = 0n;
  #intervalMs = INTERVAL_MS;
  #leaseMs = 3 * INTERVAL_MS;
  #limits = LIMITS;
  #mostAgents = Number.POSITIVE_INFINITY;
  /** Since when a message waits for a response; undefined while none does. */
  #waitingSince: Moment | undefined;
  /** With what the stream ends by itself: the last goodbye, or the last report. */
  #closing: "goodbye" | "reports" | undefined;
  /** Whether the server has acknowledged a beat on the open stream. */
  #isAcknowledged = false;
  #firstResponseTimeoutMs = SHORTEST_FIRST_RESPONSE_TIMEOUT_MS;
  #continueSending: () => void = () => undefined;
  /** While this is set, no stream is opened. */
  #suspended: PromiseWithResolvers<void> | undefined;
  /** Ends the stream that is open. */
  #leave: () => void = () => undefined;

  constructor(options: HeartbeatStreamOptions) {
    this.#options = options;
    this.#nextGeneration = options.nextGeneration ?? (() => ++this.#generation);
    this.done = this.#run();
    // Keeps a rejection without a handler from ending the process.
    this.done.catch(() => undefined);
  }

  /** How many agents beat here. */
  get size(): number {
    return this.#queue.size;
  }

  /** Whether the stream can take another agent, by the limits that the server has sent. */
  get hasRoom(): boolean {
    return this.#queue.size < this.#mostAgents;
  }

  /** Whether an agent beats here. */
  has(agentId: string): boolean {
    return this.#queue.has(agentId);
  }

  /** The newest revision of an agent that the server has sent; 0 before the first. */
  knownRevision(agentId: string): bigint {
    return this.#queue.knownRevision(agentId);
  }

  /**
   * Starts the beats of an agent.
   *
   * @param claim why it beats. Default: its first claim
   * @param agreed what both sides agreed on through another stream. Default: nothing
   */
  add(agentId: string, claim?: AgentClaim, agreed?: AgreedState): void {
    this.#queue.add(agentId, claim, agreed);
    this.#continueSending();
  }

  /** Takes over agents of another stream. */
  adopt(entries: readonly QueueEntry[]): void {
    for (const entry of entries) this.#queue.adopt(entry);
    this.#continueSending();
  }

  /**
   * Sends a report or the goodbye of an agent. It replaces an earlier report.
   *
   * @returns false for an agent that does not beat here, or has said goodbye
   */
  report(agentId: string, content: BeatContent, settle?: Settle, knownRevision?: bigint): boolean {
    const isQueued = this.#queue.report(agentId, content, settle, knownRevision);
    this.#continueSending();
    return isQueued;
  }

  /** Sends nothing until `resume`, so that leases expire. Keeps the reports. May be called again. */
  suspend(): void {
    if (this.#suspended !== undefined) return;
    this.#suspended = Promise.withResolvers();
    this.#leave();
  }

  resume(): void {
    this.#suspended?.resolve();
    this.#suspended = undefined;
  }

  /** Ends the stream, at once unless it has to wait. May be called again. */
  async close({ goodbyeWithinMs = 0, reportsWithinMs = 0 }: CloseOptions = {}): Promise<void> {
    this.resume();
    this.#closing = goodbyeWithinMs > 0 || reportsWithinMs === 0 ? "goodbye" : "reports";
    if (goodbyeWithinMs > 0) this.#queue.leaveAll();
    this.#skipPause.abort();
    const withinMs = Math.max(goodbyeWithinMs, reportsWithinMs);
    if (withinMs > 0 && !this.#over) {
      this.#continueSending();
      const tooLate = setTimeout(() => this.#stop.abort(), Math.min(withinMs, LONGEST_TIMER_MS));
      await this.done.catch(() => undefined);
      clearTimeout(tooLate);
    }
    this.#stop.abort();
    await this.done.catch(() => undefined);
  }

  get #over(): boolean {
    if (this.#stop.signal.aborted) return true;
    if (this.#closing === "reports") return this.#queue.isSettled;
    return this.#closing === "goodbye" && this.#queue.size === 0;
  }

  async #run(): Promise<void> {
    while (!this.#over) {
      if (this.#suspended !== undefined) {
        await this.#suspended.promise;
        continue;
      }
      const { error, atOnce } = await this.#runStream();
      if (this.#over) return;
      if (this.#suspended !== undefined) continue;
      if (error?.permanent === true && this.#options.persistent !== true) throw error;
      // Leases run on. So there are a few attempts within a lease, however many have failed.
      const pauseMs = atOnce ? 0 : Math.min(this.#retry.next(), this.#leaseMs / 5);
      const retryInMs = Math.max(error?.retryAfterMs ?? 0, pauseMs);
      this.#options.onConnection?.({ state: "waiting", error, retryInMs });
      const { signal } = this.#skipPause.signal.aborted ? this.#stop : this.#skipPause;
      await pause(retryInMs, signal);
    }
  }

  /** One stream, from its first response to its end. */
  async #runStream(): Promise<End> {
    const firstResponse = Promise.withResolvers<void>();
    const ending = new AbortController();
    const { clients } = this.#options;
    let atOnce = false;
    let moved = false;
    // The next stream uses another connection: this one is dead, or its replica does not respond or drains.
    const move = (): void => {
      ending.abort();
      if (!moved) clients.reconnect?.();
      moved = true;
    };
    const firstResponseTimer = setTimeout(
      move,
      Math.min(this.#firstResponseTimeoutMs, this.#leaseMs / FIRST_RESPONSES_PER_LEASE),
    );
    this.#firstResponseTimeoutMs = Math.min(LONGEST_FIRST_RESPONSE_TIMEOUT_MS, 2 * this.#firstResponseTimeoutMs);
    const signal = AbortSignal.any([ending.signal, this.#stop.signal]);
    signal.addEventListener("abort", () => {
      firstResponse.resolve();
      this.#continueSending();
    });
    this.#queue.restart();
    this.#waitingSince = undefined;
    this.#isAcknowledged = false;
    this.#leave = () => {
      atOnce = true;
      move();
    };
    const unwatch = this.#watchConnection(move, this.#leave);
    let drain: { readonly timer: ReturnType<typeof setTimeout>; readonly at: number } | undefined;
    const leaveWithin = (ms: number): void => {
      const at = performance.now() + Math.random() * ms;
      // If the server asks twice, the earlier moment counts.
      if (drain !== undefined && drain.at <= at) return;
      clearTimeout(drain?.timer);
      drain = { at, timer: setTimeout(move, Math.min(at - performance.now(), LONGEST_TIMER_MS)) };
    };
    try {
      const responses = clients.agents.heartbeat(this.#requests(firstResponse.promise, signal), { signal });
      for await (const response of responses) {
        clearTimeout(firstResponseTimer);
        this.#firstResponseTimeoutMs = SHORTEST_FIRST_RESPONSE_TIMEOUT_MS;
        this.#waitingSince = undefined;
        this.#receive(response);
        firstResponse.resolve();
        const within = response.draining?.reconnectWithin;
        if (within !== undefined) leaveWithin(millisOf(within));
        this.#continueSending();
      }
      return { error: undefined, atOnce };
    } catch (thrown) {
      return { error: drain === undefined && !atOnce ? callErrorOf(thrown) : undefined, atOnce };
    } finally {
      clearTimeout(firstResponseTimer);
      clearTimeout(drain?.timer);
      unwatch();
      if (this.#stop.signal.aborted) ending.abort();
      else move();
    }
  }

  /**
   * Checks the connection. No event reports one that went silent, or that ended while the machine slept, and leases run on.
   *
   * @returns a function that stops the checks
   */
  #watchConnection(onDead: () => void, onSlept: () => void): () => void {
    let lastLook = currentMoment();
    let asking = false;
    let timer: ReturnType<typeof setTimeout>;
    const look = (): void => {
      const lateMs = msSince(lastLook);
      lastLook = currentMoment();
      if (lateMs > Math.max(SHORTEST_SLEEP_MS, this.#intervalMs)) onSlept();
      else if (!asking) {
        asking = true;
        const finish = (dead: boolean): void => {
          asking = false;
          if (dead) onDead();
        };
        void this.#isDead().then(finish, () => finish(false));
      }
      again();
    };
    const again = (): void => {
      const lookMs = Math.min(LONGEST_LOOK_MS, Math.max(SHORTEST_LOOK_MS, this.#intervalMs / LOOKS_PER_INTERVAL));
      timer = setTimeout(look, lookMs);
    };
    again();
    return () => clearTimeout(timer);
  }

  async #isDead(): Promise<boolean> {
    const since = this.#waitingSince;
    const { isAnswered } = this.#options.clients;
    const timeoutMs = Math.min(LONGEST_UNANSWERED_MS, this.#intervalMs * UNANSWERED_SHARE);
    if (isAnswered === undefined || since === undefined || msSince(since) < timeoutMs) return false;
    const answered = await isAnswered(timeoutMs);
    // A response that arrived in the meantime shows that the connection works.
    return !answered && this.#waitingSince === since;
  }

  #receive(response: HeartbeatResponse): void {
    const { nextHeartbeatIn, leaseTtl, limits } = response;
    if (nextHeartbeatIn !== undefined) this.#intervalMs = Math.max(1, millisOf(nextHeartbeatIn));
    if (leaseTtl !== undefined) this.#leaseMs = millisOf(leaseTtl);
    if (limits !== undefined) {
      this.#limits = {
        beats: limits.maxBeats || LIMITS.beats,
        bytes: (limits.maxMessageBytes || LIMITS.bytes) - ENVELOPE_BYTES,
      };
      this.#mostAgents = limits.maxAgents || Number.POSITIVE_INFINITY;
      this.#options.onStream?.();
      if (this.#queue.size > this.#mostAgents && this.#options.onSurplus !== undefined) {
        this.#options.onSurplus(this.#queue.removeSurplus(this.#mostAgents));
      }
    }
    if (response.acknowledgedSequence > 0n) this.#retry.reset();
    // Without agents there is nothing to acknowledge.
    if (response.acknowledgedSequence > 0n || this.#queue.size === 0) this.#noteConnected();
    for (const message of messagesOf(response)) if (this.#accepts(message)) this.#options.onMessage?.(message);
    this.#queue.acknowledge(response.acknowledgedSequence);
  }

  #noteConnected(): void {
    if (this.#isAcknowledged) return;
    this.#isAcknowledged = true;
    this.#options.onConnection?.({ state: "connected", intervalMs: this.#intervalMs, leaseMs: this.#leaseMs });
  }

  /** Whether a message is for an agent of this stream, and not overtaken by a newer one. */
  #accepts(message: ClawMessageView): boolean {
    switch (message.kind) {
      case "result":
        return this.#queue.receive(message);
    }
  }

  /** The transport takes the next message when it has capacity, so messages do not queue up here. */
  async *#requests(
    firstResponse: Promise<void>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof HeartbeatRequestSchema>> {
    await firstResponse;
    const { clawIdentifier, instanceId } = this.#options;
    const generation = this.#nextGeneration();
    let sequence = 0n;
    let renewedAt = performance.now();
    while (!signal.aborted && !this.#over) {
      if (performance.now() >= renewedAt + this.#intervalMs) {
        this.#queue.renewAll();
        renewedAt = performance.now();
      }
      if (this.#queue.hasWork) {
        sequence += 1n;
        const beats = this.#queue.nextBeats(sequence, this.#limits);
        this.#waitingSince ??= currentMoment();
        yield sequence === 1n ? { sequence, beats, clawIdentifier, instanceId, generation } : { sequence, beats };
      } else {
        await this.#woken(Math.max(0, renewedAt + this.#intervalMs - performance.now()));
      }
    }
  }

  #woken(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.min(withinMs, LONGEST_TIMER_MS));
      this.#continueSending = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
