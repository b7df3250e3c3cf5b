import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  HeartbeatRequestSchema,
  HeartbeatResponse,
} from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { millisOf } from "../../../../src/contract/timestamps.ts";
import { LONGEST_TIMER_MS, pause } from "../../../../src/scheduling/timers.ts";
import { type CallError, callErrorOf } from "../connection/call-error.ts";
import { createRetryPause } from "../connection/retry-pause.ts";
import type { ConnectedClients } from "../connection/service-clients.ts";
import { currentMoment, type Moment, msSince } from "../elapsed.ts";
import { type BeatView, beatView } from "../views.ts";
import {
  type AgentClaim,
  type AgreedState,
  type BeatContent,
  BeatQueue,
  type MessageLimits,
  type QueueEntry,
  type Settle,
} from "./beat-queue.ts";

/** What counts until the server has told its own. */
const INTERVAL_MS = 10_000;
const LIMITS: MessageLimits = { beats: 1_000, bytes: 1_048_576 };
/** The claw, the process, its generation and the sequence, each at its longest. */
const ENVELOPE_BYTES = 1_152;
/**
 * The server says hello before anything is asked of it. One that does not is suspended, mostly, and another one has to be
 * found while leases run: so not much time at first, and more each time in a row, since it may be the way that is slow.
 */
const SHORTEST_FIRST_RESPONSE_TIMEOUT_MS = 1_000;
const LONGEST_FIRST_RESPONSE_TIMEOUT_MS = 5_000;
const FIRST_RESPONSES_PER_LEASE = 4;
/**
 * A beat that is not answered for this share of the interval, and then a question on the same connection that is not
 * for as long: the connection is dead. So another carries the beat before two thirds of the lease are over. A server
 * without its database answers questions and acknowledges nothing; its streams stay.
 */
const UNANSWERED_SHARE = 1 / 3;
const LONGEST_UNANSWERED_MS = 5_000;
/** How often the connection is looked after: so many times in an interval, within these bounds. */
const LOOKS_PER_INTERVAL = 50;
const SHORTEST_LOOK_MS = 100;
const LONGEST_LOOK_MS = 1_000;
/** Who looks later than this, and than an interval, was asleep: its connection may have ended without a word. */
const SHORTEST_SLEEP_MS = 2_000;

/** How the connection to the service stands. */
export type HeartbeatConnection =
  | { readonly state: "connected"; readonly intervalMs: number; readonly leaseMs: number }
  | { readonly state: "waiting"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface HeartbeatStreamOptions {
  /** Where these can tell that their connection is dead, and open another, the stream moves when it is. */
  readonly clients: Pick<ConnectedClients, "agents"> & Partial<Pick<ConnectedClients, "isAnswered" | "reconnect">>;
  /** The claw that the agents live in; beats for agents of another are refused. */
  readonly clawIdentifier: string;
  /** Names this process, anew at each of its starts. */
  readonly instanceId: string;
  /** Numbers the streams of this process, where it has several. Each number is greater than those before. */
  readonly nextGeneration?: () => bigint;
  /** Whether the stream is tried again also when the server refuses it in a way that stays. Default: no. */
  readonly persistent?: boolean;
  /** What the server says of an agent: what it is at first, what somebody else made of it, what was refused. */
  readonly onBeat?: (beat: BeatView) => void;
  readonly onConnection?: (connection: HeartbeatConnection) => void;
  /** Takes agents that are more than the server lets a stream have, with all that they have to say. */
  readonly onSurplus?: (entries: readonly QueueEntry[]) => void;
}

export interface CloseOptions {
  /** How long to wait until the server knows that all agents leave; without it they say nothing, and their leases run on. */
  readonly goodbyeWithinMs?: number;
  /** How long to wait, where there are no goodbyes, until every report is acknowledged. */
  readonly reportsWithinMs?: number;
}

/** How a stream ended. */
interface End {
  /** Undefined when the server asked for a new one. */
  readonly error: CallError | undefined;
  /** Nobody is at fault and leases are running out: the next stream does not wait. */
  readonly hurry: boolean;
}

/**
 * The heartbeats of many agents on one stream: beats at the server's pace, sends reports at once, opens the stream
 * anew when it ends, and says again what was not acknowledged. Begins at its making, and ends by `close`.
 *
 * An agent for which the server refuses beats (taken over, unknown, of another claw) is dropped, after `onBeat` told so;
 * it may be added again.
 */
export class HeartbeatStream {
  /**
   * Resolves when the stream was closed. Rejects with a CallError when the server refuses it in a way that stays, unless
   * it is persistent.
   */
  readonly done: Promise<void>;

  readonly #options: HeartbeatStreamOptions;
  readonly #queue = new BeatQueue();
  readonly #stop = new AbortController();
  /** Ends the pause that is under way before the next stream: goodbyes do not wait for a better moment. */
  readonly #hurry = new AbortController();
  readonly #retry = createRetryPause();
  readonly #nextGeneration: () => bigint;
  #generation = 0n;
  #intervalMs = INTERVAL_MS;
  #leaseMs = 3 * INTERVAL_MS;
  #limits = LIMITS;
  #mostAgents = Number.POSITIVE_INFINITY;
  /** Since when what was sent waits for a word of the server; undefined while nothing does. */
  #waitingSince: Moment | undefined;
  /** When it is over although nobody stopped it: with the last goodbye, or with the last report. */
  #closing: "goodbye" | "reports" | undefined;
  #firstResponseTimeoutMs = SHORTEST_FIRST_RESPONSE_TIMEOUT_MS;
  #wake: () => void = () => undefined;
  /** While this is there no stream is opened. */
  #suspended: PromiseWithResolvers<void> | undefined;
  /** Ends the stream that is open. */
  #leave: () => void = () => undefined;

  constructor(options: HeartbeatStreamOptions) {
    this.#options = options;
    this.#nextGeneration = options.nextGeneration ?? (() => ++this.#generation);
    this.done = this.#run();
    // Who does not ask for the end is not to die of it.
    this.done.catch(() => undefined);
  }

  /** How many agents beat here. */
  get size(): number {
    return this.#queue.size;
  }

  /** Whether the server lets the stream have another agent, as far as it has said. */
  get hasRoom(): boolean {
    return this.#queue.size < this.#mostAgents;
  }

  /** Whether an agent beats here. */
  has(agentId: string): boolean {
    return this.#queue.has(agentId);
  }

  /** The newest revision of an agent that the server has told; 0 before it has told any. */
  knownRevision(agentId: string): bigint {
    return this.#queue.knownRevision(agentId);
  }

  /**
   * Lets an agent beat here from now on.
   *
   * @param claim what its program decided. Default: its first claim
   * @param agreed what both sides agreed on by another stream. Default: nothing
   */
  add(agentId: string, claim?: AgentClaim, agreed?: AgreedState): void {
    this.#queue.add(agentId, claim, agreed);
    this.#wake();
  }

  /** Takes in agents of another stream. */
  adopt(entries: readonly QueueEntry[]): void {
    for (const entry of entries) this.#queue.adopt(entry);
    this.#wake();
  }

  /**
   * Sends what an agent says of itself, or its goodbye. Of what was not sent yet the newest counts.
   *
   * @returns whether it will be said: not of an agent that does not beat here, or has said goodbye
   */
  report(agentId: string, content: BeatContent, settle?: Settle, knownRevision?: bigint): boolean {
    const taken = this.#queue.report(agentId, content, settle, knownRevision);
    this.#wake();
    return taken;
  }

  /** Says nothing more, so that leases run out, until `resume`. What is reported meanwhile is kept. May be repeated. */
  suspend(): void {
    if (this.#suspended !== undefined) return;
    this.#suspended = Promise.withResolvers();
    this.#leave();
  }

  resume(): void {
    this.#suspended?.resolve();
    this.#suspended = undefined;
  }

  /** Ends the stream, at once unless there is something to wait for. May be repeated. */
  async close({ goodbyeWithinMs = 0, reportsWithinMs = 0 }: CloseOptions = {}): Promise<void> {
    this.resume();
    this.#closing = goodbyeWithinMs > 0 || reportsWithinMs === 0 ? "goodbye" : "reports";
    if (goodbyeWithinMs > 0) this.#queue.leaveAll();
    this.#hurry.abort();
    const withinMs = Math.max(goodbyeWithinMs, reportsWithinMs);
    if (withinMs > 0 && !this.#over) {
      this.#wake();
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
      const { error, hurry } = await this.#converse();
      if (this.#over) return;
      if (this.#suspended !== undefined) continue;
      if (error?.hopeless === true && this.#options.persistent !== true) throw error;
      // Leases run on meanwhile: however often it failed, it is tried a few times within one.
      const pauseMs = hurry ? 0 : Math.min(this.#retry.next(), this.#leaseMs / 5);
      const retryInMs = Math.max(error?.retryAfterMs ?? 0, pauseMs);
      this.#options.onConnection?.({ state: "waiting", error, retryInMs });
      const { signal } = this.#hurry.signal.aborted ? this.#stop : this.#hurry;
      await pause(retryInMs, signal);
    }
  }

  /** One stream from its hello to its end. */
  async #converse(): Promise<End> {
    const firstResponse = Promise.withResolvers<void>();
    const ending = new AbortController();
    const { clients } = this.#options;
    let hurry = false;
    let moved = false;
    // By another connection, since this one is dead, or leads to a replica that cannot be had or wants to be left.
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
      this.#wake();
    });
    this.#queue.restart();
    this.#waitingSince = undefined;
    this.#leave = () => {
      hurry = true;
      move();
    };
    const unwatch = this.#watchConnection(move, this.#leave);
    let drain: { readonly timer: ReturnType<typeof setTimeout>; readonly at: number } | undefined;
    const leaveWithin = (ms: number): void => {
      const at = performance.now() + Math.random() * ms;
      // Asked twice, it goes when it was asked to go first.
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
        this.#listen(response);
        firstResponse.resolve();
        const within = response.draining?.reconnectWithin;
        if (within !== undefined) leaveWithin(millisOf(within));
        this.#wake();
      }
      return { error: undefined, hurry };
    } catch (thrown) {
      return { error: drain === undefined && !hurry ? callErrorOf(thrown) : undefined, hurry };
    } finally {
      clearTimeout(firstResponseTimer);
      clearTimeout(drain?.timer);
      unwatch();
      if (this.#stop.signal.aborted) ending.abort();
      else move();
    }
  }

  /**
   * Nothing tells of a connection that went silent, nor of one that ended while this machine slept, and leases run on.
   *
   * @returns what ends it
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
        const told = (dead: boolean): void => {
          asking = false;
          if (dead) onDead();
        };
        void this.#isDead().then(told, () => told(false));
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
    // Whatever came meanwhile, the connection lives.
    return !answered && this.#waitingSince === since;
  }

  #listen(response: HeartbeatResponse): void {
    const { nextHeartbeatIn, leaseTtl, limits } = response;
    if (nextHeartbeatIn !== undefined) this.#intervalMs = Math.max(1, millisOf(nextHeartbeatIn));
    if (leaseTtl !== undefined) this.#leaseMs = millisOf(leaseTtl);
    if (limits !== undefined) {
      this.#limits = {
        beats: limits.maxBeats || LIMITS.beats,
        bytes: (limits.maxMessageBytes || LIMITS.bytes) - ENVELOPE_BYTES,
      };
      this.#mostAgents = limits.maxAgents || Number.POSITIVE_INFINITY;
      this.#options.onConnection?.({ state: "connected", intervalMs: this.#intervalMs, leaseMs: this.#leaseMs });
      if (this.#queue.size > this.#mostAgents && this.#options.onSurplus !== undefined) {
        this.#options.onSurplus(this.#queue.removeSurplus(this.#mostAgents));
      }
    }
    if (response.acknowledgedSequence > 0n) this.#retry.reset();
    for (const result of response.results) {
      const beat = beatView(result);
      if (this.#queue.receive(beat)) this.#options.onBeat?.(beat);
    }
    this.#queue.acknowledge(response.acknowledgedSequence);
  }

  /** The transport asks for the next message when it has room for it, so nothing piles up here. */
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
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
