import type { SessionStart } from "../../common/contract/enum-names.ts";

/** The value of `agent_liveness.instance` while no process has held the agent since it was created or moved. */
export const NO_INSTANCE = "00000000-0000-0000-0000-000000000000";

/** A stream that claims an agent. */
export interface Claimant {
  /** The claw process as a UUID. Undefined: the stream names none, and counts as a process of its own. */
  readonly instance: string | undefined;
  readonly generation: bigint;
  /** False: the stream lost the agent before, so its claim does not supersede a living session. */
  readonly fresh: boolean;
  /** The stream resumes an earlier session: its claim fails if another process has held the agent since. */
  readonly resumes: boolean;
  /**
   * The epoch under which the stream held the agent. Undefined: it never did, or it was told that another session took
   * the agent.
   */
  readonly heldUnder?: bigint | undefined;
}

/** The newest known session of an agent. */
export interface LastSession {
  readonly epoch: bigint;
  /** Whether its stream is open, at a replica that is running. */
  readonly held: boolean;
  /** Its claw process. Null: the stream named none. `NO_INSTANCE`: there was no session. */
  readonly instance: string | null;
  readonly generation: bigint;
  /** A restore or a failover lost part of the history since this session, and perhaps later sessions with it. */
  readonly outdated: boolean;
}

/**
 * The kind of claim that a stream makes.
 *
 * @param start what the beat said; undefined: nothing, as in clients of version 0.1
 * @param lost whether another stream took the agent from this stream, or this stream was denied it
 */
export function claimOf(start: SessionStart | undefined, lost: boolean): Pick<Claimant, "fresh" | "resumes"> {
  // The next beat of a stream that lost the agent is not a new claim. Newer clients are told to claim anew.
  return lost ? { fresh: false, resumes: start !== undefined } : { fresh: true, resumes: start === "resume" };
}

/** Whether a stream may claim an agent. The query `claim-agents` applies the same rule. */
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
  // The lost history may contain the session that the stream resumes. Only a living session contradicts it.
  return last.outdated && !last.held;
}
