import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HeartbeatRequestSchema, HeartbeatResponse } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { BeatBook, type Report } from "./beat-book.ts";
import { type CallError, callErrorOf } from "./call-error.ts";
import { pause, RetryPause } from "./retry-pause.ts";
import type { ConnectedClients } from "./transport.ts";
import { type BeatView, beatView } from "./views.ts";
import { millisOf } from "./wire-words.ts";

/** What counts until the server has told its own. */
const INTERVAL_MS = 10_000;
const MOST_BEATS = 1_000;
/**
 * The server says hello before anything is asked of it. One that does not is suspended, mostly, and another one has to be
 * found while leases run: so not much time at first, and more each time in a row, since it may be the way that is slow.
 */
const FIRST_HELLO_PATIENCE_MS = 1_000;
const HELLO_PATIENCE_MS = 5_000;
const HELLOS_PER_LEASE = 4;
/**
 * A beat that is not answered for this share of the interval, and then a question on the same connection that is not
 * for as long: the connection is dead. So another carries the beat before two thirds of the lease are over. A server
 * without its database answers questions and acknowledges nothing; its streams stay.
 */
const PATIENCE_SHARE = 1 / 3;
const LONGEST_PATIENCE_MS = 5_000;
const WATCH_MS = 100;

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
  /** Since when what was sent waits for a word of the server; undefined while nothing does. */
  #waitingSince: number | undefined;
  #helloPatienceMs = FIRST_HELLO_PATIENCE_MS;
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
    const { clients } = this.#options;
    const abandon = (): void => {
      ending.abort();
      clients.reconnect?.();
    };
    const patience = setTimeout(abandon, Math.min(this.#helloPatienceMs, this.#leaseMs / HELLOS_PER_LEASE));
    this.#helloPatienceMs = Math.min(HELLO_PATIENCE_MS, 2 * this.#helloPatienceMs);
    const signal = AbortSignal.any([ending.signal, this.#stop.signal]);
    signal.addEventListener("abort", () => {
      hello.resolve();
      this.#wake();
    });
    this.#book.restart();
    this.#waitingSince = undefined;
    const watch = this.#watchConnection(abandon);
    let drain: { readonly timer: NodeJS.Timeout; readonly at: number } | undefined;
    const leaveWithin = (ms: number): void => {
      const at = performance.now() + Math.random() * ms;
      // Asked twice, it goes when it was asked to go first.
      if (drain !== undefined && drain.at <= at) return;
      clearTimeout(drain?.timer);
      drain = { at, timer: setTimeout(abandon, at - performance.now()) };
    };
    try {
      const responses = clients.agents.heartbeat(this.#requests(hello.promise, signal), { signal });
      for await (const response of responses) {
        clearTimeout(patience);
        this.#helloPatienceMs = FIRST_HELLO_PATIENCE_MS;
        this.#waitingSince = undefined;
        this.#listen(response);
        hello.resolve();
        const within = response.draining?.reconnectWithin;
        // By another connection, since this one leads to the replica that wants to be left.
        if (within !== undefined) leaveWithin(millisOf(within));
        this.#wake();
      }
      return undefined;
    } catch (thrown) {
      const error = callErrorOf(thrown);
      // A replica that says so itself keeps the connection: another one is only found by another connection.
      const refused = error.code === "UNAVAILABLE" && error.reason !== undefined;
      if (refused && !ending.signal.aborted) clients.reconnect?.();
      return drain === undefined ? error : undefined;
    } finally {
      clearTimeout(patience);
      clearTimeout(drain?.timer);
      clearInterval(watch);
      ending.abort();
    }
  }

  /** Nothing tells of a connection that went silent, and leases run on. */
  #watchConnection(abandon: () => void): NodeJS.Timeout | undefined {
    const { isAnswered } = this.#options.clients;
    if (isAnswered === undefined) return undefined;
    let asking = false;
    const check = async (): Promise<void> => {
      const since = this.#waitingSince;
      const patienceMs = Math.min(LONGEST_PATIENCE_MS, this.#intervalMs * PATIENCE_SHARE);
      if (asking || since === undefined || performance.now() - since < patienceMs) return;
      asking = true;
      const answered = await isAnswered(patienceMs);
      asking = false;
      // Whatever came meanwhile, the connection lives.
      if (!answered && this.#waitingSince === since) abandon();
    };
    return setInterval(() => void check(), WATCH_MS);
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
      if (performance.now() >= renewedAt + this.#intervalMs) {
        this.#book.renewAll();
        renewedAt = performance.now();
      }
      if (this.#book.hasWork) {
        sequence += 1n;
        const beats = this.#book.take(sequence, this.#mostBeats);
        this.#waitingSince ??= performance.now();
        yield sequence === 1n ? { sequence, beats, clawIdentifier, instanceId, generation } : { sequence, beats };
      } else {
        await this.#woken(Math.max(0, renewedAt + this.#intervalMs - performance.now()));
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
