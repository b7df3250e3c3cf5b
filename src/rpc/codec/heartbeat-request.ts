import { AgentStatus } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentBeat,
  type HeartbeatRequest,
  SessionStart,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { WireReader } from "./wire-reader.ts";

/**
 * Reads the heartbeats that nearly all heartbeats are: names in ASCII, a status, a known revision, a session start. Undefined
 * for any other, however right or wrong, which is the library's to read or to refuse: what is read here, it would read alike.
 */
export function readUsualHeartbeat(bytes: Buffer): HeartbeatRequest | undefined {
  const reader = new WireReader(bytes);
  const beats: AgentBeat[] = [];
  let sequence = 0;
  let clawIdentifier = "";
  let instanceId = "";
  let generation = 0;
  while (reader.more) {
    switch (reader.tag()) {
      case SEQUENCE:
        sequence = reader.varint();
        break;
      case BEATS: {
        const beat = readBeat(reader);
        if (beat === undefined) return undefined;
        beats.push(beat);
        break;
      }
      case CLAW_IDENTIFIER:
        clawIdentifier = reader.ascii();
        break;
      case INSTANCE_ID:
        instanceId = reader.ascii();
        break;
      case GENERATION:
        generation = reader.varint();
        break;
      default:
        return undefined;
    }
    if (reader.unusual) return undefined;
  }
  return {
    $typeName: "harborforge.agents.v1.HeartbeatRequest",
    sequence: BigInt(sequence),
    beats,
    clawIdentifier,
    instanceId,
    generation: BigInt(generation),
  };
}

/** Each at the place of its number. */
const STATUSES = [
  AgentStatus.UNSPECIFIED,
  AgentStatus.IDLE,
  AgentStatus.ON_CALL,
  AgentStatus.BUSY,
  AgentStatus.EXHAUSTED,
  AgentStatus.OFFLINE,
] as const;

const SESSION_STARTS = [SessionStart.UNSPECIFIED, SessionStart.FIRST, SessionStart.ANEW, SessionStart.RESUME] as const;

function readBeat(reader: WireReader): AgentBeat | undefined {
  const outer = reader.enter();
  const beat: AgentBeat = {
    $typeName: "harborforge.agents.v1.AgentBeat",
    agentId: "",
    status: 0,
    exhaustion: undefined,
    leaving: false,
    knownRevision: undefined,
    sessionStart: 0,
  };
  while (reader.more) {
    switch (reader.tag()) {
      case AGENT_ID:
        beat.agentId = reader.ascii();
        break;
      case STATUS: {
        const status = STATUSES[reader.varint()];
        if (status === undefined) return undefined;
        beat.status = status;
        break;
      }
      case LEAVING:
        beat.leaving = reader.varint() !== 0;
        break;
      case KNOWN_REVISION:
        beat.knownRevision = BigInt(reader.varint());
        break;
      case SESSION_START: {
        const start = SESSION_STARTS[reader.varint()];
        if (start === undefined) return undefined;
        beat.sessionStart = start;
        break;
      }
      default:
        return undefined;
    }
    if (reader.unusual) return undefined;
  }
  reader.leave(outer);
  return beat;
}

// Tags: the field's number, times eight, and its wire type (0 a varint, 2 bytes with their length).
const SEQUENCE = 1 * 8;
const BEATS = 2 * 8 + 2;
const CLAW_IDENTIFIER = 3 * 8 + 2;
const INSTANCE_ID = 4 * 8 + 2;
const GENERATION = 5 * 8;
const AGENT_ID = 1 * 8 + 2;
const STATUS = 2 * 8;
const LEAVING = 4 * 8;
const KNOWN_REVISION = 5 * 8;
const SESSION_START = 8 * 8;
