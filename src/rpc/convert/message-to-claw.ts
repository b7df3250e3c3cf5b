import { create } from "@bufbuild/protobuf";
import { MAX_MESSAGE_BYTES } from "../../../common/contract/message-limit.ts";
import { durationOf } from "../../../common/contract/timestamps.ts";
import {
  DrainingSchema,
  HeartbeatLimitsSchema,
  type HeartbeatResponse,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { MAX_AGENTS_PER_STREAM } from "../../domain/heartbeat.ts";
import type { Pace } from "../../domain/lease.ts";
import type { BeatResult, ClawMessage, SessionOutput } from "../../domain/message-to-claw.ts";
import { MAX_BEATS } from "../../domain/validation.ts";
import { beatResultMessage } from "./beat-result.ts";
import { wakeUpdateMessage } from "./wake.ts";

/** The fields of a response that carry no message to a claw: every response may have them. */
export const ENVELOPE_FIELDS = [
  "acknowledged_sequence",
  "next_heartbeat_in",
  "lease_ttl",
  "limits",
] as const satisfies readonly string[];

/** The field of a response that carries each kind of message. */
export const FIELD_OF_KIND: Readonly<Record<ClawMessage["kind"], string>> = {
  result: "results",
  change: "results",
  lost: "results",
  wake: "wake_updates",
  draining: "draining",
};

/** The first response of a stream. The server sends it before it has read anything: the client waits for the pace. */
export function helloResponse(pace: Pace): HeartbeatResponse {
  const hello = emptyResponse(0n, pace, undefined);
  hello.limits = create(HeartbeatLimitsSchema, {
    maxBeats: MAX_BEATS,
    maxMessageBytes: MAX_MESSAGE_BYTES,
    maxAgents: MAX_AGENTS_PER_STREAM,
  });
  return hello;
}

/** An output without messages, which nearly all are. */
export function acknowledgementResponse({ acknowledgedSequence, firstIntervalMs }: SessionOutput, pace: Pace) {
  return emptyResponse(acknowledgedSequence, pace, firstIntervalMs);
}

/** The largest response that carries wakes, in bytes. The contract promises it. */
const MAX_WAKE_RESPONSE_BYTES = 65_536;

/**
 * One response, or several where the messages would make one too large for its reader: the result of a rejected beat
 * repeats its `agent_id` as it was sent, however long. Messages may come before the acknowledgement, never after it.
 *
 * @param acknowledgedBefore what the response before acknowledged
 */
export function* responsesOf(
  { acknowledgedSequence, messages, firstIntervalMs }: SessionOutput,
  acknowledgedBefore: bigint,
  pace: Pace,
): Generator<HeartbeatResponse> {
  let response = emptyResponse(acknowledgedBefore, pace, firstIntervalMs);
  let bytes = 0;
  for (const message of messages) {
    const size = largestSize(message);
    const most = message.kind === "wake" ? MAX_WAKE_RESPONSE_BYTES : MAX_MESSAGE_BYTES;
    if (bytes > 0 && bytes + size > most) {
      yield response;
      response = emptyResponse(acknowledgedBefore, pace, firstIntervalMs);
      bytes = 0;
    }
    addTo(response, message);
    bytes += size;
  }
  response.acknowledgedSequence = acknowledgedSequence;
  yield response;
}

function addTo(response: HeartbeatResponse, message: ClawMessage): void {
  switch (message.kind) {
    case "result":
      response.results.push(beatResultMessage(message));
      return;
    case "change":
    case "lost":
      response.results.push(beatResultMessage({ ...UNASKED, ...message }));
      return;
    case "wake":
      response.wakeUpdates.push(wakeUpdateMessage(message));
      return;
    case "draining":
      response.draining = create(DrainingSchema, { reconnectWithin: durationOf(message.reconnectWithinMs) });
      return;
    default:
      message satisfies never;
  }
}

/** A result that belongs to no beat. */
const UNASKED: Omit<BeatResult, "kind" | "agentId"> = {
  status: null,
  exhaustion: null,
  revision: null,
  refusal: null,
  sequence: 0n,
  beatIndex: 0,
};

/** An upper bound in bytes: at most three a UTF-16 unit of text, and the other fields of a result and its error. */
function largestSize(message: ClawMessage): number {
  switch (message.kind) {
    case "result":
      return (
        200 +
        3 * message.agentId.length +
        3 * (message.refusal?.message.length ?? 0) +
        (message.wakeResults ?? []).reduce((bytes, { wakeId }) => bytes + 400 + 6 * wakeId.length, 0)
      );
    case "lost":
      return 200 + 3 * message.agentId.length + 3 * message.refusal.message.length;
    case "change":
      return 200 + 3 * message.agentId.length;
    case "wake":
      return 200 + 3 * (message.agentId.length + message.wakeId.length) + (message.payload?.length ?? 0);
    case "draining":
      return 32;
  }
}

/** Every response announces the pace, which changes with the fleet. */
function emptyResponse(
  acknowledgedSequence: bigint,
  { intervalMs, leaseMs }: Pace,
  firstIntervalMs: number | undefined,
): HeartbeatResponse {
  return {
    $typeName: "harborforge.agents.v1.HeartbeatResponse",
    acknowledgedSequence,
    results: [],
    wakeUpdates: [],
    nextHeartbeatIn: durationOf(firstIntervalMs ?? intervalMs),
    leaseTtl: durationOf(leaseMs),
  };
}
