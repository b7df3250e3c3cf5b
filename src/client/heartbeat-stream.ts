import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HeartbeatRequestSchema, HeartbeatResponse } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { BeatBook, type Report } from "./beat-book.ts";
import { type CallError, callErrorOf } from "./call-error.ts";
import { pause, RetryPause } from "./retry-pause.ts";
import type { ServiceClients } from "./transport.ts";
import { type BeatView, beatView } from "./views.ts";
import { millisOf } from "./wire-words.ts";

/** What counts until the server has told its own. */
const INTERVAL_MS = 10_000;
const MOST_BEATS = 1_000;
/** The server says hello before anything is asked of it. */
const HELLO_PATIENCE_MS = 5_000;

/** How the connection to the service stands. */
export type HeartbeatConnection =
  | { readonly state: "connected"; readonly intervalMs: number; readonly leaseMs: number }
  | { readonly state: "waiting"; readonly error: CallError | undefined; readonly retryInMs: number };

export interface HeartbeatStreamOptions {
  readonly clients: Pick<ServiceClients, "agents">;
  /** The claw that the agents live in; beats for agents of another are refused. */
  readonly clawIdentifier: string;
  /** Names this process, anew at each of its starts. */
  readonly instanceId: string;
  /** What the server says of an agent: what it is at first, what somebody else made of it, what was refused. */
  readonly onBeat?: (beat: BeatView) => void;
  readonly onConnection?: (connection: HeartbeatConnection) => void;
}

/**
 * The heartbeats of many agents on one stream: beats at the server's pace, sends reports at once, opens the stream
 * anew when it ends, and says again what was not acknowledged. Begins at its making, and ends by `close`.
 *
 * An agent for which the server refuses beats (taken over, unknown, of another claw) is dropped, after `onBeat` told so;
 * it may be added again.
 */
export class HeartbeatStream {
  /** Resolves when the stream was closed. Rejects with a CallError when the server refuses it in a way that stays. */
  readonly done: Promise<void>;

  readonly #options: HeartbeatStreamOptions;
  readonly #book = new BeatBook();
  readonly #stop = new AbortController();
  readonly #retry = new RetryPause();
  #generation = 0n;
  #intervalMs = INTERVAL_MS;
  #leaseMs = 3 * INTERVAL_MS;
  #mostBeats = MOST_BEATS;
  #leaving = false;
  #wake: () => void = () => undefined;

  constructor(options: HeartbeatStreamOptions) {
    this.#options = options;
    this.done = this.#run();
    // Who does not ask for the end is not to die of it.
    this.done.catch(() => undefined);
  }

  /** Lets an agent beat here from now on. */
  add(agentId: string): void {
    this.#book.add(agentId);
    this.#wake();
  }

  /** Sends what an agent says of itself. Of what was not sent yet the newest counts. */
  report(agentId: string, report: Report): void {
    this.#book.say(agentId, report);
    this.#wake();
  }

  /**
   * Ends the stream.
   *
   * @param goodbyeWithinMs how long to wait until the server knows that all agents leave; without it they say nothing,
   *   and their leases run on
   */
  async close({ goodbyeWithinMs = 0 }: { readonly goodbyeWithinMs?: number } = {}): Promise<void> {
    this.#leaving = true;
    if (goodbyeWithinMs > 0) {
      this.#book.sayGoodbye();
      this.#wake();
      const tooLate = setTimeout(() => this.#stop.abort(), goodbyeWithinMs);
      await this.done.catch(() => undefined);
      clearTimeout(tooLate);
    }
    this.#stop.abort();
    await this.done.catch(() => undefined);
  }

  get #over(): boolean {
    return this.#stop.signal.aborted || (this.#leaving && this.#book.size === 0);
  }

  async #run(): Promise<void> {
    while (!this.#over) {
      const error = await this.#converse();
      if (this.#over) return;
      if (error?.hopeless === true) throw error;
      // Leases run on meanwhile: however often it failed, it is tried a few times within one.
      const retryInMs = Math.max(error?.retryAfterMs ?? 0, Math.min(this.#retry.next(), this.#leaseMs / 5));
      this.#options.onConnection?.({ state: "waiting", error, retryInMs });
      await pause(retryInMs, this.#stop.signal);
    }
  }

  /** One stream from its hello to its end. What it ended of; undefined when the server asked for a new one. */
  async #converse(): Promise<CallError | undefined> {
    const hello = Promise.withResolvers<void>();
    const ending = new AbortController();
    const patience = setTimeout(() => ending.abort(), HELLO_PATIENCE_MS);
    const signal = AbortSignal.any([ending.signal, this.#stop.signal]);
    signal.addEventListener("abort", () => {
      hello.resolve();
      this.#wake();
    });
    this.#book.restart();
    let drain: NodeJS.Timeout | undefined;
    try {
      const responses = this.#options.clients.agents.heartbeat(this.#requests(hello.promise, signal), { signal });
      for await (const response of responses) {
        clearTimeout(patience);
        this.#listen(response);
        hello.resolve();
        const within = response.draining?.reconnectWithin;
        if (within !== undefined) drain ??= setTimeout(() => ending.abort(), Math.random() * millisOf(within));
        this.#wake();
      }
      return undefined;
    } catch (thrown) {
      return drain === undefined ? callErrorOf(thrown) : undefined;
    } finally {
      clearTimeout(patience);
      clearTimeout(drain);
      ending.abort();
    }
  }

  #listen(response: HeartbeatResponse): void {
    const { nextHeartbeatIn, leaseTtl, limits } = response;
    if (nextHeartbeatIn !== undefined) this.#intervalMs = Math.max(1, millisOf(nextHeartbeatIn));
    if (leaseTtl !== undefined) this.#leaseMs = millisOf(leaseTtl);
    if (limits !== undefined) {
      this.#mostBeats = limits.maxBeats || MOST_BEATS;
      this.#options.onConnection?.({ state: "connected", intervalMs: this.#intervalMs, leaseMs: this.#leaseMs });
    }
    if (response.acknowledgedSequence > 0n) this.#retry.reset();
    for (const result of response.results) {
      const beat = beatView(result);
      if (this.#book.learn(beat)) this.#options.onBeat?.(beat);
    }
    this.#book.acknowledge(response.acknowledgedSequence);
  }

  /** The transport asks for the next message when it has room for it, so nothing piles up here. */
  async *#requests(
    hello: Promise<void>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof HeartbeatRequestSchema>> {
    await hello;
    const { clawIdentifier, instanceId } = this.#options;
    const generation = ++this.#generation;
    let sequence = 0n;
    let renewedAt = performance.now();
    while (!signal.aborted && !this.#over) {
      const waitMs = renewedAt + this.#intervalMs - performance.now();
      if (waitMs <= 0) {
        this.#book.renewAll();
        renewedAt = performance.now();
      }
      if (this.#book.hasWork) {
        sequence += 1n;
        const beats = this.#book.take(sequence, this.#mostBeats);
        yield sequence === 1n ? { sequence, beats, clawIdentifier, instanceId, generation } : { sequence, beats };
      } else {
        await this.#woken(waitMs);
      }
    }
  }

  #woken(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, withinMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
