import { create, toBinary } from "@bufbuild/protobuf";
import type { ChangeType } from "../../../common/contract/enum-names.ts";
import { CHANGE_TYPE_VALUES } from "../../../common/contract/enum-values.ts";
import type { Agent as AgentMessage, AgentTransition } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentChange,
  AgentChangeSchema,
  type WatchAgentsResponse,
  WatchAgentsResponseSchema,
  WatchBookmarkSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { Transition } from "../../domain/agent.ts";
import { agentOf, type WatchedAgent } from "../../domain/filter.ts";
import type { WatchedChange, WatchMessage, WatchQuery } from "../../domain/watch-message.ts";
import { keepEncoding } from "../codec/encoded.ts";
import { transitionMessage, watchedAgentMessage } from "./agent.ts";

/** The largest size of a message to a watcher, in bytes. A message with a single change may be larger. */
export const MAX_WATCH_MESSAGE_BYTES = 65_536;

/** The largest size of the revision and a bookmark. */
const ENVELOPE_BYTES = 32;
/** An upper bound of an agent without its text, with tags and lengths. */
const AGENT_BYTES = 192;

/** A change, and its encoding as the only change of a message. */
interface EncodedChange {
  readonly message: AgentChange;
  readonly bytes: Uint8Array;
}

interface ConvertedTransition {
  readonly agent: AgentMessage;
  readonly transition: AgentTransition;
  /** The encoded changes of this transition that are not merged with others. All watchers share them. */
  readonly changes: Map<ChangeType, EncodedChange>;
}

/** Converted and encoded once for all watchers. An entry lives as long as its transition. */
const converted = new WeakMap<Transition, ConvertedTransition>();

/** Converts the output of one watch to messages of at most 64 KiB, in the same order. */
export function createWatchEncoder(
  query: Pick<WatchQuery, "afterRevision" | "conflate">,
): (message: WatchMessage) => Generator<WatchAgentsResponse> {
  /** The revision from which the watcher would resume after the messages so far; 0 in a snapshot. */
  let resumeRevision = query.afterRevision ?? 0n;
  let inSnapshot = query.afterRevision === undefined;

  return function* encode(message) {
    let part = create(WatchAgentsResponseSchema);
    let changes: Uint8Array[] = [];
    let room = MAX_WATCH_MESSAGE_BYTES - ENVELOPE_BYTES;
    const isFull = (bytes: number): boolean =>
      bytes > room && (part.snapshotAgents.length > 0 || part.changes.length > 0);
    const cut = (): WatchAgentsResponse => {
      const full = part;
      full.revision = resumeRevision;
      if (changes.length > 0) keepEncoding(full, [encodedWithoutChanges(full), ...changes]);
      part = create(WatchAgentsResponseSchema);
      changes = [];
      room = MAX_WATCH_MESSAGE_BYTES - ENVELOPE_BYTES;
      return full;
    };

    for (const agent of message.snapshotAgents) {
      const bytes = agentBytes(agent);
      if (isFull(bytes)) yield cut();
      part.snapshotAgents.push(watchedAgentMessage(agent));
      room -= bytes;
    }
    for (const change of message.changes) {
      const { message: converted, bytes } = encodedChange(change);
      if (isFull(bytes.length)) yield cut();
      part.changes.push(converted);
      changes.push(bytes);
      room -= bytes.length;
      // Changes come in the order of revisions, so a watcher may resume from each. Merged changes keep their first
      // position but have their newest revision: resuming between them could skip others. So these messages keep the
      // revision of the last complete one.
      if (!inSnapshot && !query.conflate) resumeRevision = change.transition.revision;
    }
    if (message.bookmark !== undefined) {
      part.bookmark = create(WatchBookmarkSchema, message.bookmark);
      if (message.bookmark.snapshotComplete) inSnapshot = false;
    }
    resumeRevision = message.revision;
    yield cut();
  };
}

function encodedWithoutChanges(message: WatchAgentsResponse): Uint8Array {
  return toBinary(WatchAgentsResponseSchema, { ...message, changes: [] });
}

function encodedChange({ type, transition, conflated }: WatchedChange): EncodedChange {
  const shared = convertedOf(transition);
  const known = conflated === 0 ? shared.changes.get(type) : undefined;
  if (known !== undefined) return known;
  const message = create(AgentChangeSchema, {
    type: CHANGE_TYPE_VALUES[type],
    agent: shared.agent,
    transition: shared.transition,
    conflated,
  });
  const alone = create(WatchAgentsResponseSchema, { changes: [message] });
  const made: EncodedChange = { message, bytes: toBinary(WatchAgentsResponseSchema, alone) };
  if (conflated === 0) shared.changes.set(type, made);
  return made;
}

function convertedOf(transition: Transition): ConvertedTransition {
  const known = converted.get(transition);
  if (known !== undefined) return known;
  const made: ConvertedTransition = {
    agent: watchedAgentMessage(agentOf(transition)),
    transition: transitionMessage(transition),
    changes: new Map(),
  };
  converted.set(transition, made);
  return made;
}

function agentBytes({ agentId, clawIdentifier }: WatchedAgent): number {
  return AGENT_BYTES + Buffer.byteLength(agentId) + Buffer.byteLength(clawIdentifier);
}
