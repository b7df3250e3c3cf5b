import type { AgentStatus, SessionStart } from "../contract/words.ts";
import type { Exhaustion } from "./agent.ts";
import type { Refusal } from "./errors.ts";
import type { Beat } from "./status-machine.ts";

/** Agents that one stream may carry: what bounds its memory, and what the stream announces. */
export const MAX_AGENTS_PER_STREAM = 10_000;

/** One beat of a message, parsed: fit to be judged, or refused by itself without harm to its neighbours. */
export type ParsedBeat =
  | {
      readonly agentId: string;
      readonly leaving: boolean;
      readonly beat: Beat;
      /** Why its stream beats for the agent; undefined: it does not say. */
      readonly start?: SessionStart | undefined;
    }
  | { readonly agentId: string; readonly refusal: Refusal };

/** What became of a beat, or what somebody else did to an agent of the stream (`sequence` 0). */
export interface BeatResult {
  readonly agentId: string;
  /** The server's view after it; null where the server has none to give (the agent does not exist, or is not the stream's). */
  readonly status: AgentStatus | null;
  readonly exhaustion: Exhaustion | null;
  readonly revision: bigint | null;
  readonly refusal: Refusal | null;
  /** The message that carried the beat; 0 when unasked. */
  readonly sequence: bigint;
  /** The beat's place in its message, from 0. */
  readonly beatIndex: number;
}
