import { type AgentHandle, AgentSeat, type Stage } from "./agent-handle.ts";
import type { BookEntry, Report, Settle } from "./beat-book.ts";
import { type HeartbeatConnection, HeartbeatStream } from "./heartbeat-stream.ts";
import { Listeners, type OnListenerError, warnOf } from "./listeners.ts";
import { checkName } from "./name.ts";
import type { ConnectedClients } from "./service-clients.ts";
import { createServiceClients, type ServiceTarget } from "./transport.ts";
import type { BeatView } from "./views.ts";

/** Agents that the service refuses are tried again after this, give or take a quarter. */
const RETRY_REFUSED_MS = 60_000;
const CLOSE_WITHIN_MS = 5_000;

export interface HeartbeatClientOptions extends ServiceTarget {
  /** The claw that the agents live in: beats for agents of another are refused. 1 to 128 characters. */
  readonly claw: string;
  /**
   * Names this process, so that of two of its streams the newer one counts. Anew at each start. Default: a random UUID.
   */
  readonly instanceId?: string;
  /** Takes what a listener threw. Default: a warning of the process. */
  readonly onListenerError?: OnListenerError;
}

export interface HeartbeatClientEvents {
  /** How the connection stands, of each stream where there are several. */
  readonly connection: HeartbeatConnection;
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
 * @throws RangeError for what is no address or no name of a claw
 */
export function createHeartbeatClient(options: HeartbeatClientOptions): HeartbeatClient {
  return new ClawHeartbeats(options);
}

class ClawHeartbeats implements HeartbeatClient, Stage {
  readonly instanceId: string;
  readonly #options: HeartbeatClientOptions;
  readonly #onListenerError: OnListenerError;
  readonly #events: {
    readonly [Name in keyof HeartbeatClientEvents]: Listeners<HeartbeatClientEvents[Name]>;
  };
  readonly #seats = new Map<string, AgentSeat>();
  readonly #streams = new Map<HeartbeatStream, ConnectedClients>();
  readonly #streamOf = new Map<string, HeartbeatStream>();
  readonly #refused = new Set<AgentSeat>();
  /** Which agents others took from a stream. It never gets them back: only one that was opened after that does. */
  readonly #lost = new WeakMap<HeartbeatStream, Set<string>>();
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** By the clock, so that a process that was given the name of the one before it comes after that. */
  #generation = BigInt(Date.now()) * 1_000n;
  #closing: Promise<void> | undefined;

  constructor(options: HeartbeatClientOptions) {
    this.#options = options;
    this.instanceId = options.instanceId ?? crypto.randomUUID();
    checkName("claw", options.claw);
    checkName("instanceId", this.instanceId);
    // Complains of a wrong address here, where its author sees it.
    createServiceClients(options).close();
    this.#onListenerError = options.onListenerError ?? warnOf;
    this.#events = { connection: new Listeners(this.#onListenerError) };
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  agent(agentId: string): AgentHandle {
    const present = this.#seats.get(agentId);
    if (present !== undefined) return present;
    checkName("agentId", agentId);
    const seat = new AgentSeat(agentId, this, this.#onListenerError);
    seat.claim();
    return seat;
  }

  on<Name extends keyof HeartbeatClientEvents>(
    name: Name,
    listener: (event: HeartbeatClientEvents[Name]) => void,
  ): () => void {
    return this.#events[name].add(listener);
  }

  close(options: ClientCloseOptions = {}): Promise<void> {
    this.#closing ??= this.#end(options);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  place(seat: AgentSeat): void {
    const { agentId } = seat;
    const other = this.#seats.get(agentId);
    if (other !== undefined && other !== seat) throw new RangeError(`${agentId} left, and was asked for again since`);
    this.#seats.set(agentId, seat);
    this.#refused.delete(seat);
    let stream = this.#streamOf.get(agentId);
    stream ??= [...this.#streams.keys()].find((one) => one.hasRoom && !this.#lost.get(one)?.has(agentId));
    stream ??= this.#openStream();
    this.#streamOf.set(agentId, stream);
    stream.add(agentId, seat.session);
    for (const one of [...this.#streams.keys()]) this.#retire(one);
  }

  say(seat: AgentSeat, word: Report | "leaving", settle: Settle): void {
    this.#streamOf.get(seat.agentId)?.report(seat.agentId, word, settle);
  }

  forget(seat: AgentSeat): void {
    const { agentId } = seat;
    this.#refused.delete(seat);
    if (this.#seats.get(agentId) !== seat) return;
    this.#seats.delete(agentId);
    this.#leaveStream(agentId);
  }

  retryLater(seat: AgentSeat): void {
    if (this.closed) return;
    this.#refused.add(seat);
    this.#retry ??= setTimeout(
      () => {
        this.#retry = undefined;
        for (const one of [...this.#refused]) this.place(one);
      },
      RETRY_REFUSED_MS * (0.75 + Math.random() / 2),
    );
  }

  #openStream(): HeartbeatStream {
    const clients = createServiceClients(this.#options);
    const stream: HeartbeatStream = new HeartbeatStream({
      clients,
      clawIdentifier: this.#options.claw,
      instanceId: this.instanceId,
      nextGeneration: () => ++this.#generation,
      persistent: true,
      onBeat: (beat) => this.#hear(stream, beat),
      onConnection: (connection) => this.#connection(stream, connection),
      onSurplus: (entries) => this.#move(entries),
    });
    this.#streams.set(stream, clients);
    return stream;
  }

  /** To a stream that is newer than the one that had them: so it wins, whichever is heard first. */
  #move(entries: readonly BookEntry[]): void {
    const stream = this.#openStream();
    for (const { agentId } of entries) this.#streamOf.set(agentId, stream);
    stream.adopt(entries);
  }

  #hear(stream: HeartbeatStream, beat: BeatView): void {
    const { agentId } = beat;
    if (this.#streamOf.get(agentId) !== stream) return;
    const stays = stream.has(agentId);
    if (!stays) {
      if (beat.refusal?.reason === "SESSION_SUPERSEDED") {
        this.#lost.set(stream, (this.#lost.get(stream) ?? new Set()).add(agentId));
      }
      this.#leaveStream(agentId);
    }
    this.#seats.get(agentId)?.hear(beat, stays);
  }

  #leaveStream(agentId: string): void {
    const stream = this.#streamOf.get(agentId);
    this.#streamOf.delete(agentId);
    if (stream !== undefined) this.#retire(stream);
  }

  /** A stream that has nobody left is closed, unless it is the only one: the next agent would open it again. */
  #retire(stream: HeartbeatStream): void {
    if (stream.size > 0 || this.#streams.size === 1 || this.closed) return;
    const clients = this.#streams.get(stream);
    this.#streams.delete(stream);
    void stream.close().then(() => clients?.close());
  }

  #connection(stream: HeartbeatStream, connection: HeartbeatConnection): void {
    // To the service it is another stream.
    if (connection.state === "connected") this.#lost.delete(stream);
    if (connection.state === "waiting" && connection.error?.hopeless === true) {
      const { error } = connection;
      for (const [agentId, seat] of this.#seats) {
        if (this.#streamOf.get(agentId) === stream) seat.fail("STREAM_REFUSED", error.message, error);
      }
    }
    this.#events.connection.tell(connection);
  }

  async #end({ goodbye = true, withinMs = CLOSE_WITHIN_MS }: ClientCloseOptions): Promise<void> {
    clearTimeout(this.#retry);
    this.#refused.clear();
    if (goodbye) for (const seat of this.#seats.values()) seat.depart();
    const how = goodbye ? { goodbyeWithinMs: withinMs } : { reportsWithinMs: withinMs };
    await Promise.all([...this.#streams.keys()].map((stream) => stream.close(how)));
    for (const clients of this.#streams.values()) clients.close();
    for (const seat of this.#seats.values()) seat.end();
    this.#seats.clear();
    this.#streamOf.clear();
    this.#streams.clear();
  }
}
