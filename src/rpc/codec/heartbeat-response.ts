import type { Duration } from "@bufbuild/protobuf/wkt";
import type { HeartbeatResponse } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { WireWriter } from "./wire-writer.ts";

/**
 * Writes what nearly all responses on a heartbeat stream are: an acknowledgement and the pace. Undefined for any other,
 * which is the library's to write.
 */
export function writeUsualAcknowledgement(response: HeartbeatResponse): Buffer | undefined {
  const { acknowledgedSequence, results, nextHeartbeatIn, leaseTtl, draining, limits } = response;
  if (results.length > 0 || draining !== undefined || limits !== undefined) return undefined;
  if (response.$unknown !== undefined || !isUsual(nextHeartbeatIn) || !isUsual(leaseTtl)) return undefined;
  const writer = new WireWriter(LONGEST);
  writer.int64(ACKNOWLEDGED_SEQUENCE, acknowledgedSequence);
  writeDuration(writer, NEXT_HEARTBEAT_IN, nextHeartbeatIn);
  writeDuration(writer, LEASE_TTL, leaseTtl);
  return writer.unusual ? undefined : writer.written;
}

function isUsual(duration: Duration | undefined): duration is Duration {
  if (duration === undefined || duration.$unknown !== undefined) return false;
  const { seconds, nanos } = duration;
  return seconds >= 0n && seconds <= LONGEST_SECONDS && nanos >= 0 && nanos <= LARGEST_NANOS;
}

function writeDuration(writer: WireWriter, tag: number, { seconds, nanos }: Duration): void {
  const content = writer.begin(tag);
  writer.int64(SECONDS, seconds);
  writer.number(NANOS, nanos);
  writer.end(content);
}

/** Three fields of at most nine bytes, with what is around two of them. */
const LONGEST = 64;
const LONGEST_SECONDS = 2n ** 31n;
const LARGEST_NANOS = 999_999_999;

// Tags: the field's number, times eight, and its wire type (0 a varint, 2 bytes with their length).
const ACKNOWLEDGED_SEQUENCE = 1 * 8;
const NEXT_HEARTBEAT_IN = 3 * 8 + 2;
const LEASE_TTL = 4 * 8 + 2;
const SECONDS = 1 * 8;
const NANOS = 2 * 8;
