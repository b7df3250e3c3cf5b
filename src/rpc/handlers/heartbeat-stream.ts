import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type AgentService,
  DrainingSchema,
  HeartbeatLimitsSchema,
  type HeartbeatResponse,
  HeartbeatResponseSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type BeatResult, MAX_AGENTS_PER_STREAM } from "../../domain/heartbeat.ts";
import { MAX_BEATS } from "../../domain/validation.ts";
import type { Heartbeats, SessionOutput } from "../backend.ts";
import { beatResultMessage } from "../convert/beat-result.ts";
import { durationOf } from "../convert/time.ts";
import { MAX_MESSAGE_BYTES } from "../doors/limits.ts";
import { HeartbeatReader } from "./heartbeat-reader.ts";
import { heartbeatsFor } from "./within-scope.ts";

/**
 * `Heartbeat`: says hello, then reads and answers side by side. What ends the stream never ends a lease: not the end
 * of the input (which a cancelled call looks like), nor an error, nor the signal.
 */
export function createHeartbeatStream(all: Heartbeats): ServiceImpl<typeof AgentService>["heartbeat"] {
  return async function* heartbeat(requests, context) {
    const { signal } = context;
    const heartbeats = heartbeatsFor(all, context);
    using reader = new HeartbeatReader(heartbeats, requests, signal);
    // Before any request: headers leave with the first message, and a client waits for the pace.
    yield hello(heartbeats);
    const session = await reader.session;
    let acknowledged = 0n;
    for (let output = await session?.next(); output !== undefined; output = await session?.next()) {
      yield* responsesOf(heartbeats, output, acknowledged);
      acknowledged = output.acknowledgedSequence;
    }
    signal.throwIfAborted();
    // What was due is said; only now the client hears why its stream ends.
    reader.throwIfFailed();
  };
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
  const last = response(heartbeats, output.acknowledgedSequence, output.firstIntervalMs);
  last.results = results;
  if (output.reconnectWithinMs !== undefined) {
    last.draining = create(DrainingSchema, { reconnectWithin: durationOf(output.reconnectWithinMs) });
  }
  yield last;
}

/** An upper bound in bytes: at most three a UTF-16 unit, and what else a result and its error hold. */
function largestSize({ agentId, refusal }: BeatResult): number {
  return 200 + 3 * agentId.length + 3 * (refusal?.message.length ?? 0);
}

/** Every response tells the pace: it changes with the fleet. */
function response(heartbeats: Heartbeats, acknowledgedSequence: bigint, firstIntervalMs?: number): HeartbeatResponse {
  const pace = heartbeats.pace();
  return create(HeartbeatResponseSchema, {
    acknowledgedSequence,
    nextHeartbeatIn: durationOf(firstIntervalMs ?? pace.intervalMs),
    leaseTtl: durationOf(pace.leaseMs),
  });
}
