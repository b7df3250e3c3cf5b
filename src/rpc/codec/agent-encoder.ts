import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Agent } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import { WireWriter } from "./wire-writer.ts";

/**
 * Writes agents that nearly all agents are: names in ASCII, times since 1970. Undefined where one is not, which is the
 * library's to write; what is written here, it would write alike.
 *
 * @param field the number of the field that they stand in, one after the other
 */
export function writeUsualAgents(field: number, agents: readonly Agent[]): Buffer | undefined {
  let room = 0;
  for (const { agentId, clawIdentifier } of agents) room += MOST_BESIDES_TEXT + agentId.length + clawIdentifier.length;
  const writer = new WireWriter(room);
  for (const agent of agents) {
    if (agent.$unknown !== undefined) return undefined;
    const content = writer.begin(field * 8 + 2);
    writeAgent(writer, agent);
    writer.end(content);
    if (writer.unusual) return undefined;
  }
  return writer.written;
}

function writeAgent(writer: WireWriter, agent: Agent): void {
  writer.int64(ID, agent.id);
  writer.int64(USER_ID, agent.userId);
  writer.text(AGENT_ID, agent.agentId);
  writer.text(CLAW_IDENTIFIER, agent.clawIdentifier);
  writer.number(STATUS, agent.status);
  writeTime(writer, LAST_HEARTBEAT, agent.lastHeartbeat);
  writeTime(writer, EXHAUSTED_AT, agent.exhaustedAt);
  writeTime(writer, RECOVERY_AT, agent.recoveryAt);
  writer.number(EXHAUST_REASON, agent.exhaustReason);
  writeTime(writer, CREATED_AT, agent.createdAt);
  writer.int64(REVISION, agent.revision);
  writeTime(writer, LEASE_EXPIRES_AT, agent.leaseExpiresAt);
  writeTime(writer, STATUS_CHANGED_AT, agent.statusChangedAt);
  writeTime(writer, SUSPECT_SINCE, agent.suspectSince);
}

function writeTime(writer: WireWriter, tag: number, time: Timestamp | undefined): void {
  if (time === undefined) return;
  if (time.$unknown !== undefined) writer.unusual = true;
  const content = writer.begin(tag);
  writer.int64(SECONDS, time.seconds);
  writer.number(NANOS, time.nanos);
  writer.end(content);
}

/** Five numbers of at most nine bytes, seven times of at most seventeen, and lengths; rounded up. */
const MOST_BESIDES_TEXT = 224;

// Tags: the field's number, times eight, and its wire type (0 a varint, 2 bytes with their length).
const ID = 1 * 8;
const USER_ID = 2 * 8;
const AGENT_ID = 3 * 8 + 2;
const CLAW_IDENTIFIER = 4 * 8 + 2;
const STATUS = 5 * 8;
const LAST_HEARTBEAT = 6 * 8 + 2;
const EXHAUSTED_AT = 7 * 8 + 2;
const RECOVERY_AT = 8 * 8 + 2;
const EXHAUST_REASON = 9 * 8;
const CREATED_AT = 10 * 8 + 2;
const REVISION = 11 * 8;
const LEASE_EXPIRES_AT = 12 * 8 + 2;
const STATUS_CHANGED_AT = 13 * 8 + 2;
const SUSPECT_SINCE = 14 * 8 + 2;
const SECONDS = 1 * 8;
const NANOS = 2 * 8;
