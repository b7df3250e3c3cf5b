import { create, toBinary } from "@bufbuild/protobuf";
import type { Agent as AgentMessage, AgentTransition } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentChange,
  AgentChangeSchema,
  type WatchAgentsResponse,
  WatchAgentsResponseSchema,
  WatchBookmarkSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { CHANGE_TYPE_VALUES } from "../../contract/enums.ts";
import type { ChangeType } from "../../contract/words.ts";
import type { Transition } from "../../domain/agent.ts";
import { agentOf, type WatchedAgent } from "../../domain/filter.ts";
import type { WatchedChange, WatchMessage, WatchQuery } from "../../domain/watch-message.ts";
import { keepEncoding } from "../codec/encoded.ts";
import { transitionMessage, watchedAgentMessage } from "./agent.ts";

/** The greatest size of a message to a watcher in bytes; a single change may be larger. */
export const MAX_WATCH_MESSAGE_BYTES = 65_536;

/** The revision and a bookmark, at most. */
const ENVELOPE_BYTES = 32;
/** An upper bound of all of an agent that is not text, tags and lengths included. */
const AGENT_BYTES = 192;

/** A change, and what it is on the wire as the only one of a message. */
interface EncodedChange {
  readonly message: AgentChange;
  readonly bytes: Uint8Array;
}

interface ConvertedTransition {
  readonly agent: AgentMessage;
  readonly transition: AgentTransition;
  /** The unmerged changes made of it: the same for all watchers to whom it is the same. */
  readonly changes: Map<ChangeType, EncodedChange>;
}

/** Converted and encoded once for all watchers, and gone when the last of them has let go of the transition. */
const converted = new WeakMap<Transition, ConvertedTransition>();

/** Turns what one watch tells into messages of at most 64 KiB, in the order in which it is told. */
export function createWatchEncoder(
  query: Pick<WatchQuery, "afterRevision" | "conflate">,
): (message: WatchMessage) => Generator<WatchAgentsResponse> {
  /** Where the watcher would resume from after what was sent so far; 0 in a snapshot. */
  let told = query.afterRevision ?? 0n;
  let inSnapshot = query.afterRevision === undefined;

  return function* encode(message) {
    let part = create(WatchAgentsResponseSchema);
    let changes: Uint8Array[] = [];
    let room = MAX_WATCH_MESSAGE_BYTES - ENVELOPE_BYTES;
    const isFull = (bytes: number): boolean =>
      bytes > room && (part.snapshotAgents.length > 0 || part.changes.length > 0);
    const cut = (): WatchAgentsResponse => {
      const full = part;
      full.revision = told;
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
      // Changes come in the order of revisions, so a part may be resumed from. Merged ones keep their first place but
      // carry their newest revision: resuming between them could skip others, so those parts stay at the last whole.
      if (!inSnapshot && !query.conflate) told = change.transition.revision;
    }
    if (message.bookmark !== undefined) {
      part.bookmark = create(WatchBookmarkSchema, message.bookmark);
      if (message.bookmark.snapshotComplete) inSnapshot = false;
    }
    told = message.revision;
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
