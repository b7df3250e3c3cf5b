import type { SessionStart } from "../../common/contract/enum-names.ts";
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
