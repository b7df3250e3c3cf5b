import { ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type MessageListener,
  type MessageSource,
  type MessageSubscription,
  SourceStream,
  subscribe,
} from "@harborforge/connect-grpc-js";
import type {
  AgentService,
  HeartbeatRequest,
  HeartbeatResponse,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { Refusal } from "../../domain/errors.ts";
import { peerKey } from "../callers/call-values.ts";
import { acknowledgementResponse, helloResponse, responsesOf } from "../convert/message-to-claw.ts";
import { beatsOf } from "../convert/request.ts";
import type { HeartbeatSession, Heartbeats, SessionListener } from "./backend.ts";
import { checkEnvelope, sessionOptionsOf } from "./heartbeat-envelope.ts";
import { heartbeatsFor } from "./scoped-backend.ts";

/**
 * `Heartbeat`: sends a first response, then reads and responds concurrently. The end of the stream never ends a lease: neither
 * the end of the input (a cancelled call looks like it), nor an error, nor the signal.
 */
export function createHeartbeatStream(all: Heartbeats): ServiceImpl<typeof AgentService>["heartbeat"] {
  return (requests, context) =>
    new SourceStream(
      new HeartbeatStream(
        heartbeatsFor(all, context),
        requests,
        context.signal,
        context.values.get(peerKey).address || undefined,
      ),
    );
}

type StreamState =
  /** Reads the client's messages. */
  | { readonly name: "reading" }
  /** The client ended the input. The session's output is still sent. */
  | { readonly name: "finishing" }
  /** The stream ends with an error, after the session's output. */
  | { readonly name: "failing"; readonly reason: unknown }
  /** The session is closed. Reads of the stream throw the failure, if there is one. */
  | { readonly name: "closed"; readonly failure?: { readonly reason: unknown } };

/**
 * One stream: checks envelopes, opens the session with the first message, feeds it, and encodes its output. It uses calls and
 * no promises: thousands of messages a second pass through here.
 */
class HeartbeatStream implements MessageSource<HeartbeatResponse>, MessageListener<HeartbeatRequest>, SessionListener {
  readonly #heartbeats: Heartbeats;
  readonly #signal: AbortSignal;
  /** The address of the client. */
  readonly #peer: string | undefined;
  readonly #input: MessageSubscription | undefined;
  #session: HeartbeatSession | undefined;
  /** The last message's sequence; 0 before the first. */
  #previous = 0n;
  #acknowledged = 0n;
  /** Responses that are sent before the session's next output. */
  #responses: HeartbeatResponse[];
  #state: StreamState = { name: "reading" };
  #onReadable: () => void = () => undefined;
  readonly #onAbort = (): void => {
    this.close();
    this.#onReadable();
  };

  constructor(
    heartbeats: Heartbeats,
    requests: AsyncIterable<HeartbeatRequest>,
    signal: AbortSignal,
    peer: string | undefined,
  ) {
    this.#heartbeats = heartbeats;
    this.#peer = peer;
    this.#signal = signal;
    // Before any request: headers leave with the first message, and a client waits for the pace.
    this.#responses = [helloResponse(heartbeats.pace())];
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this.close();
    else this.#input = subscribe(requests, this);
  }

  message(request: HeartbeatRequest): boolean {
    if (this.#state.name !== "reading") return false;
    try {
      checkEnvelope(request, this.#previous);
      this.#previous = request.sequence;
      this.#session ??= this.#heartbeats.openSession({ ...sessionOptionsOf(request), peer: this.#peer }, this);
      return this.#session.submit(request.sequence, beatsOf(request.beats));
    } catch (reason) {
      this.fail(reason);
      return false;
    }
  }

  end(): void {
    if (this.#state.name !== "reading") return;
    this.#state = { name: "finishing" };
    this.#session?.finish();
    this.#onReadable();
  }

  fail(reason: unknown): void {
    if (this.#state.name !== "reading") return;
    this.#state = { name: "failing", reason };
    // Otherwise the connection is broken, or the server has a fault: the session's output cannot be sent, or not be trusted.
    if (reason instanceof Refusal || reason instanceof ConnectError) this.#session?.finish();
    else this.#session?.close();
    this.#onReadable();
  }

  onOutput(): void {
    this.#onReadable();
  }

  onCapacity(): void {
    this.#input?.resume();
  }

  take(): HeartbeatResponse | undefined {
    const waiting = this.#responses.shift();
    if (waiting !== undefined) return waiting;
    this.#signal.throwIfAborted();
    const output = this.#session?.take();
    if (output !== undefined) {
      const before = this.#acknowledged;
      this.#acknowledged = output.acknowledgedSequence;
      const pace = this.#heartbeats.pace();
      if (output.messages.length === 0) return acknowledgementResponse(output, pace);
      this.#responses = [...responsesOf(output, before, pace)];
      return this.#responses.shift();
    }
    // All output is sent. Only now the client receives the reason for the end of its stream.
    if (this.#state.name === "failing" && this.#isSent()) this.close();
    if (this.#state.name === "closed" && this.#state.failure !== undefined) throw this.#state.failure.reason;
    return undefined;
  }

  get done(): boolean {
    switch (this.#state.name) {
      case "closed":
        return this.#state.failure === undefined && !this.#signal.aborted;
      case "failing":
        return false;
      default:
        return this.#isSent();
    }
  }

  onReadable(listener: () => void): void {
    this.#onReadable = listener;
  }

  /** Closes the session, in every way that a stream can end. Leases run on. */
  close(): void {
    if (this.#state.name === "closed") return;
    this.#state =
      this.#state.name === "failing" ? { name: "closed", failure: { reason: this.#state.reason } } : { name: "closed" };
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#input?.unsubscribe();
    this.#session?.close();
  }

  /** Whether all output is sent, and no more will come. */
  #isSent(): boolean {
    if (this.#responses.length > 0) return false;
    return this.#session === undefined ? this.#state.name !== "reading" : this.#session.over;
  }
}
