import type { Duration } from "@bufbuild/protobuf/wkt";
import type { HeartbeatResponse } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";

/**
 * Writes what nearly all responses on a heartbeat stream are: an acknowledgement and the pace. Undefined for any other,
 * which is the library's to write.
 */
export function writeUsualAcknowledgement(response: HeartbeatResponse): Buffer | undefined {
  const { acknowledgedSequence, results, nextHeartbeatIn, leaseTtl, draining, limits } = response;
  if (results.length > 0 || draining !== undefined || limits !== undefined) return undefined;
  if (response.$unknown !== undefined || !isUsual(nextHeartbeatIn) || !isUsual(leaseTtl)) return undefined;
  const sequence = Number(acknowledgedSequence);
  if (sequence < 0 || sequence > Number.MAX_SAFE_INTEGER) return undefined;
  const bytes = Buffer.allocUnsafe(LONGEST);
  let at = writeVarintField(bytes, 0, ACKNOWLEDGED_SEQUENCE, sequence);
  at = writeDuration(bytes, at, NEXT_HEARTBEAT_IN, nextHeartbeatIn);
  at = writeDuration(bytes, at, LEASE_TTL, leaseTtl);
  return bytes.subarray(0, at);
}

function isUsual(duration: Duration | undefined): duration is Duration {
  if (duration === undefined || duration.$unknown !== undefined) return false;
  const { seconds, nanos } = duration;
  return seconds >= 0n && seconds <= LONGEST_SECONDS && nanos >= 0 && nanos <= LARGEST_NANOS;
}

function writeDuration(bytes: Buffer, start: number, tag: number, { seconds, nanos }: Duration): number {
  bytes[start] = tag;
  const end = writeVarintField(bytes, writeVarintField(bytes, start + 2, SECONDS, Number(seconds)), NANOS, nanos);
  bytes[start + 1] = end - start - 2;
  return end;
}

/** Nothing for 0, which is what a field without presence is when it is left out. @returns where it ends */
function writeVarintField(bytes: Buffer, start: number, tag: number, value: number): number {
  if (value === 0) return start;
  bytes[start] = tag;
  let at = start + 1;
  let rest = value;
  while (rest >= 0x80) {
    bytes[at] = (rest % 0x80) + 0x80;
    at += 1;
    rest = Math.floor(rest / 0x80);
  }
  bytes[at] = rest;
  return at + 1;
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
