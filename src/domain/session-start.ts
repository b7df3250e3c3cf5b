import type { SessionStart } from "../contract/words.ts";

/** In place of a process (`agent_liveness.instance`): no process has held the agent since it was created or moved. */
export const NO_INSTANCE = "00000000-0000-0000-0000-000000000000";

/** A stream that asks for an agent. */
export interface Claimant {
  /** The claw process as a UUID. Undefined: the stream names none, and is a process of its own. */
  readonly instance: string | undefined;
  readonly generation: bigint;
  /** False: the stream lost the agent before, and takes it from no session. */
  readonly fresh: boolean;
  /** The stream goes on with an earlier session: it gets the agent only if no other process has held it since. */
  readonly resumes: boolean;
  /** The epoch under which the stream held the agent, unless it was told that another session took it. */
  readonly heldUnder?: bigint | undefined;
}

/** What is known of the newest session of an agent. */
export interface LastSession {
  readonly epoch: bigint;
  /** Whether its stream lives, at a replica that lives. */
  readonly held: boolean;
  /** Its claw process. Null: it named none. `NO_INSTANCE`: there was no session. */
  readonly instance: string | null;
  readonly generation: bigint;
  /** A restore or a failover has lost part of the history since: sessions that came after this one may be forgotten. */
  readonly outdated: boolean;
}

/**
 * How a stream asks for an agent.
 *
 * @param start what the stream said of the agent; undefined: nothing, as clients of version 0.1
 * @param lost whether this stream has held the agent, or was refused it, and lost it to another stream
 */
export function claimOf(start: SessionStart | undefined, lost: boolean): Pick<Claimant, "fresh" | "resumes"> {
  // A stream that lost the agent says nothing new by its next beat. One that says why it beats is told to claim anew.
  return lost ? { fresh: false, resumes: start !== undefined } : { fresh: true, resumes: start === "resume" };
}

/** Whether a stream gets an agent that it asks for. The query `claim-agents` applies the same rule. */
export function isClaimGranted(claimant: Claimant, last: LastSession): boolean {
  // Epochs only increase. A smaller one comes from a restored database, which lost the claimant's session and all later ones.
  if (claimant.heldUnder !== undefined && last.epoch < claimant.heldUnder) return true;
  const isOwn = claimant.instance !== undefined && claimant.instance === last.instance;
  if (last.held) {
    if (!claimant.fresh) return false;
    // Of two streams of one process the higher generation wins, in any order of arrival.
    if (isOwn && last.generation > claimant.generation) return false;
  }
  if (!claimant.resumes || isOwn || last.instance === NO_INSTANCE) return true;
  // The session that the stream resumes may be one of those that are forgotten. Only a living session speaks against it.
  return last.outdated && !last.held;
}
