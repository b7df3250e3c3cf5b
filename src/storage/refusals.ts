import type { AgentKey, UserKey } from "../domain/directory.ts";
import { Refusal } from "../domain/errors.ts";

/** Refusals travel in headers, which many clients limit to 8 KiB: names are listed up to this many bytes. */
const LONGEST_LIST_BYTES = 1_024;

export function userNotFound(key: UserKey): Refusal {
  if ("agentId" in key) {
    const { agentId } = key;
    return new Refusal("USER_NOT_FOUND", "No user is bound to this agent_id.", { metadata: { agentId } });
  }
  const metadata: Record<string, string> = "id" in key ? { userId: key.id.toString() } : { username: key.username };
  return new Refusal("USER_NOT_FOUND", "There is no such user.", { metadata });
}

/** The user got and lost agents faster than it could be deleted. Nothing was changed. */
export function userKeepsChanging(id: bigint): Refusal {
  const message = "The user gets and loses agents faster than it can be deleted. Nothing was changed. Try again.";
  return new Refusal("DATABASE_UNAVAILABLE", message, { metadata: { userId: id.toString() }, retryAfterMs: 1_000 });
}

export function agentNotFound(key: AgentKey): Refusal {
  if ("agentId" in key) {
    return new Refusal("AGENT_NOT_FOUND", "There is no such agent, or no longer.", {
      metadata: { agentId: key.agentId },
    });
  }
  return new Refusal("AGENT_NOT_FOUND", "This user has no agent, or there is no such user.", {
    metadata: { userId: key.userId.toString() },
  });
}

/** Names those that are missing, as many as fit. */
export function agentsNotFound(missing: readonly [string, ...string[]]): Refusal {
  const named: string[] = [];
  let bytes = 0;
  for (const agentId of missing) {
    bytes += Buffer.byteLength(JSON.stringify(agentId));
    if (named.length > 0 && bytes > LONGEST_LIST_BYTES) break;
    named.push(agentId);
  }
  const list = named.map((agentId) => JSON.stringify(agentId)).join(", ");
  const more = missing.length > named.length ? ` and ${missing.length - named.length} more` : "";
  return new Refusal("AGENT_NOT_FOUND", `There are no such agents, or no longer: ${list}${more}.`, {
    metadata: { agentId: missing[0], agentIds: JSON.stringify(named), missing: missing.length.toString() },
  });
}

export function revisionMismatch(revision: bigint): Refusal {
  return new Refusal(
    "REVISION_MISMATCH",
    "The agent changed since the expected_revision. Read it again and decide again.",
    { metadata: { revision: revision.toString() } },
  );
}

export function revisionCompacted(oldest: bigint): Refusal {
  return new Refusal(
    "REVISION_COMPACTED",
    "The transitions after this revision are no longer kept. Start again from a snapshot of the agents.",
    { metadata: { oldestRevision: oldest.toString() } },
  );
}

export function revisionInFuture(newest: bigint): Refusal {
  return new Refusal(
    "REVISION_IN_FUTURE",
    "This revision has not been given out. Use one that this deployment has told.",
    { metadata: { newestRevision: newest.toString() } },
  );
}

export function reusedRequestId(requestId: string): Refusal {
  return new Refusal(
    "REQUEST_ID_REUSED",
    "This request_id was used for another request. Use a new one for each request, the same one only to repeat it.",
    {
      metadata: { requestId },
      violations: [{ field: "request_id", description: "was used with other content within the last 24 hours" }],
    },
  );
}

/** How long to wait before another change of an agent is tried: some of those that wait are made by then. */
const CHANGES_RETRY_MS = 250;

export function tooManyChanges(agentId: string, most: number): Refusal {
  return new Refusal(
    "LIMIT_EXCEEDED",
    `${most} changes of this agent wait already. Send the next one when some of them are answered.`,
    {
      metadata: { limit: "changesPerAgent", changesPerAgent: most.toString(), agentId },
      // Those that were refused together do not come again together.
      retryAfterMs: Math.ceil(CHANGES_RETRY_MS * (1 + Math.random())),
    },
  );
}

/** What somebody wanted to write, as far as a constraint can be against it. */
export interface Wanted {
  readonly username?: string | undefined;
  readonly email?: string | null | undefined;
  readonly agentId?: string | undefined;
  readonly userId?: bigint | undefined;
}

/** What a violated constraint means to the caller; undefined where it means a defect of ours. */
export function conflictRefusal(constraint: string, wanted: Wanted): Refusal | undefined {
  const { username = "", email, agentId = "", userId } = wanted;
  switch (constraint) {
    case "users_username_key":
      return new Refusal("USERNAME_TAKEN", "Another user has this username. Choose another one.", {
        metadata: { username },
      });
    case "users_email_key":
      return new Refusal("EMAIL_TAKEN", "Another user has this email address. Choose another one.", {
        metadata: { email: email ?? "" },
      });
    case "agents_agent_id_key":
      return agentIdTaken(agentId);
    case "agents_user_id_key":
      return new Refusal("USER_HAS_AGENT", "The user has an agent already. Delete or move that one.", {
        metadata: { userId: userId?.toString() ?? "" },
      });
    case "agents_user_id_fkey":
      return userNotFound({ id: userId ?? 0n });
    default:
      return undefined;
  }
}

export function agentIdTaken(agentId: string): Refusal {
  return new Refusal("AGENT_ID_TAKEN", "Another agent has this agent_id. It is unique over all users and claws.", {
    metadata: { agentId },
  });
}
