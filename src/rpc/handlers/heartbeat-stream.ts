import { create } from "@bufbuild/protobuf";
import { ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type MessageListener,
  type MessageSource,
  type MessageSubscription,
  SourceStream,
  subscribe,
} from "@harborforge/connect-grpc-js";
import {
  type AgentService,
  DrainingSchema,
  HeartbeatLimitsSchema,
  type HeartbeatRequest,
  type HeartbeatResponse,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { MAX_MESSAGE_BYTES } from "../../contract/limits.ts";
import { durationOf } from "../../contract/timestamps.ts";
import { Refusal } from "../../domain/errors.ts";
import { type BeatResult, MAX_AGENTS_PER_STREAM } from "../../domain/heartbeat.ts";
import { MAX_BEATS } from "../../domain/validation.ts";
import { beatResultMessage } from "../convert/beat-result.ts";
import { beatsOf } from "../convert/request.ts";
import type { HeartbeatSession, Heartbeats, SessionListener, SessionOutput } from "./backend.ts";
import { checkEnvelope, sessionOptionsOf } from "./heartbeat-envelope.ts";
import { heartbeatsFor } from "./scoped-backend.ts";

/**
 * `Heartbeat`: says hello, then reads and answers side by side. What ends the stream never ends a lease: not the end
 * of the input (which a cancelled call looks like), nor an error, nor the signal.
 */
export function createHeartbeatStream(all: Heartbeats): ServiceImpl<typeof AgentService>["heartbeat"] {
  return (requests, context) =>
    new SourceStream(new HeartbeatStream(heartbeatsFor(all, context), requests, context.signal));
}

/**
 * One stream: judges envelopes, opens the session with the first message and feeds it, and tells what the session has to
 * say. All of it is calls, and no promises: thousands of messages a second pass through here.
 */
class HeartbeatStream implements MessageSource<HeartbeatResponse>, MessageListener<HeartbeatRequest>, SessionListener {
  readonly #heartbeats: Heartbeats;
  readonly #signal: AbortSignal;
  readonly #input: MessageSubscription | undefined;
  #session: HeartbeatSession | undefined;
  /** The last message's sequence; 0 before the first. */
  #previous = 0n;
  #acknowledged = 0n;
  /** Said before anything that the session has to say. */
  #responses: HeartbeatResponse[];
  #inputEnded = false;
  #failure: { readonly reason: unknown } | undefined;
  #left = false;
  #onReadable: () => void = () => undefined;
  readonly #onAbort = (): void => {
    this.close();
    this.#onReadable();
  };

  constructor(heartbeats: Heartbeats, requests: AsyncIterable<HeartbeatRequest>, signal: AbortSignal) {
    this.#heartbeats = heartbeats;
    this.#signal = signal;
    // Before any request: headers leave with the first message, and a client waits for the pace.
    this.#responses = [hello(heartbeats)];
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this.close();
    else this.#input = subscribe(requests, this);
  }

  message(request: HeartbeatRequest): boolean {
    if (this.#left || this.#inputEnded) return false;
    try {
      checkEnvelope(request, this.#previous);
      this.#previous = request.sequence;
      this.#session ??= this.#heartbeats.openSession(sessionOptionsOf(request), this);
      return this.#session.submit(request.sequence, beatsOf(request.beats));
    } catch (reason) {
      this.fail(reason);
      return false;
    }
  }

  /** The client, or a wrong message, ended the input: what is due is still said. */
  end(): void {
    if (this.#left || this.#inputEnded) return;
    this.#inputEnded = true;
    this.#session?.finish();
    this.#onReadable();
  }

  fail(reason: unknown): void {
    if (this.#left || this.#inputEnded) return;
    this.#inputEnded = true;
    this.#failure = { reason };
    // Else a broken connection or a fault of ours: there is nobody to tell, or nothing to rely on.
    if (reason instanceof Refusal || reason instanceof ConnectError) this.#session?.finish();
    else this.#session?.close();
    this.#onReadable();
  }

  onNews(): void {
    this.#onReadable();
  }

  onCapacity(): void {
    this.#input?.resume();
  }

  take(): HeartbeatResponse | undefined {
    const said = this.#responses.shift();
    if (said !== undefined) return said;
    this.#signal.throwIfAborted();
    const output = this.#session?.take();
    if (output !== undefined) {
      const before = this.#acknowledged;
      this.#acknowledged = output.acknowledgedSequence;
      if (output.results.length === 0) return lastResponse(this.#heartbeats, output);
      this.#responses = [...responsesOf(this.#heartbeats, output, before)];
      return this.#responses.shift();
    }
    // What was due is said; only now the client hears why its stream ends.
    if (this.#failure !== undefined && this.#said()) {
      this.close();
      throw this.#failure.reason;
    }
    return undefined;
  }

  get done(): boolean {
    return this.#left ? !this.#signal.aborted : this.#failure === undefined && this.#said();
  }

  onReadable(listener: () => void): void {
    this.#onReadable = listener;
  }

  /** Closes the session, in every way that a stream can end. Leases run on. */
  close(): void {
    if (this.#left) return;
    this.#left = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#input?.unsubscribe();
    this.#session?.close();
  }

  /** Whether there is nothing left to say, now and later. */
  #said(): boolean {
    if (this.#responses.length > 0) return false;
    return this.#session === undefined ? this.#inputEnded : this.#session.over;
  }
}

function hello(heartbeats: Heartbeats): HeartbeatResponse {
  const message = response(heartbeats, 0n);
  message.limits = create(HeartbeatLimitsSchema, {
    maxBeats: MAX_BEATS,
    maxMessageBytes: MAX_MESSAGE_BYTES,
    maxAgents: MAX_AGENTS_PER_STREAM,
  });
  return message;
}

/**
 * One response, or several where the results would make one too large for its reader: a refused beat is answered with
 * its `agent_id` as it was sent, however long. Results may come before the acknowledgement, never after it.
 */
function* responsesOf(
  heartbeats: Heartbeats,
  output: SessionOutput,
  acknowledgedBefore: bigint,
): Generator<HeartbeatResponse> {
  let results: HeartbeatResponse["results"] = [];
  let bytes = 0;
  for (const result of output.results) {
    const size = largestSize(result);
    if (bytes > 0 && bytes + size > MAX_MESSAGE_BYTES) {
      const part = response(heartbeats, acknowledgedBefore, output.firstIntervalMs);
      part.results = results;
      yield part;
      results = [];
      bytes = 0;
    }
    results.push(beatResultMessage(result));
    bytes += size;
  }
  const last = lastResponse(heartbeats, output);
  last.results = results;
  yield last;
}

function lastResponse(heartbeats: Heartbeats, output: SessionOutput): HeartbeatResponse {
  const last = response(heartbeats, output.acknowledgedSequence, output.firstIntervalMs);
  if (output.reconnectWithinMs !== undefined) {
    last.draining = create(DrainingSchema, { reconnectWithin: durationOf(output.reconnectWithinMs) });
  }
  return last;
}

/** An upper bound in bytes: at most three a UTF-16 unit, and what else a result and its error hold. */
function largestSize({ agentId, refusal }: BeatResult): number {
  return 200 + 3 * agentId.length + 3 * (refusal?.message.length ?? 0);
}

/** Every response tells the pace: it changes with the fleet. */
function response(heartbeats: Heartbeats, acknowledgedSequence: bigint, firstIntervalMs?: number): HeartbeatResponse {
  const pace = heartbeats.pace();
  return {
    $typeName: "harborforge.agents.v1.HeartbeatResponse",
    acknowledgedSequence,
    results: [],
    nextHeartbeatIn: durationOf(firstIntervalMs ?? pace.intervalMs),
    leaseTtl: durationOf(pace.leaseMs),
  };
}
