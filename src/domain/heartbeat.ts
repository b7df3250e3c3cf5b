import type { AgentStatus, SessionStart } from "../contract/words.ts";
import type { Exhaustion } from "./agent.ts";
import type { Refusal } from "./errors.ts";
import type { Beat } from "./status-machine.ts";

/** The largest number of agents on one stream. It limits the stream's memory, and the stream announces it. */
export const MAX_AGENTS_PER_STREAM = 10_000;

/** A parsed beat of a message. An invalid beat is a refusal of its own and does not affect other beats. */
export type ParsedBeat =
  | {
      readonly agentId: string;
      readonly leaving: boolean;
      readonly beat: Beat;
      /** Why its stream sends beats for the agent. Undefined: the beat does not say. */
      readonly start?: SessionStart | undefined;
    }
  | { readonly agentId: string; readonly refusal: Refusal };

/** The result of a beat, or a change of an agent of the stream by others (`sequence` 0). */
export interface BeatResult {
  readonly agentId: string;
  /** The agent's status after it. Null: the agent does not exist, or the stream does not hold it. */
  readonly status: AgentStatus | null;
  readonly exhaustion: Exhaustion | null;
  readonly revision: bigint | null;
  readonly refusal: Refusal | null;
  /** The sequence of the message with the beat; 0 for a change by others. */
  readonly sequence: bigint;
  /** The index of the beat in its message, from 0. */
  readonly beatIndex: number;
}
