import type { AgentKey, UserKey } from "../domain/directories.ts";
import { Refusal } from "../domain/errors.ts";

/** Errors travel in headers, which many clients limit to 8 KiB. Lists of names take at most this many bytes. */
const LONGEST_LIST_BYTES = 1_024;

export function userNotFound(key: UserKey): Refusal {
  if ("agentId" in key) {
    const { agentId } = key;
    return new Refusal("USER_NOT_FOUND", `No user has the agent ${JSON.stringify(agentId)}.`, {
      metadata: { agentId },
    });
  }
  const metadata: Record<string, string> = "id" in key ? { userId: key.id.toString() } : { username: key.username };
  const name = "id" in key ? key.id.toString() : JSON.stringify(key.username);
  return new Refusal("USER_NOT_FOUND", `The user ${name} does not exist. Create it with CreateUser.`, { metadata });
}

/** Another caller kept creating and deleting the user's agent, so the user could not be deleted. */
export function userKeepsChanging(id: bigint): Refusal {
  const message = `The agent of the user ${id} changed during each attempt to delete the user. Nothing was changed. Try again.`;
  return new Refusal("DATABASE_UNAVAILABLE", message, { metadata: { userId: id.toString() }, retryAfterMs: 1_000 });
}

export function agentNotFound(key: AgentKey): Refusal {
  if ("agentId" in key) {
    return new Refusal(
      "AGENT_NOT_FOUND",
      `The agent ${JSON.stringify(key.agentId)} does not exist. Create it with CreateAgent.`,
      {
        metadata: { agentId: key.agentId },
      },
    );
  }
  return new Refusal("AGENT_NOT_FOUND", `The user ${key.userId} has no agent, or does not exist.`, {
    metadata: { userId: key.userId.toString() },
  });
}

/** Names the missing agents, as many as fit. */
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
  return new Refusal("AGENT_NOT_FOUND", `These agents do not exist: ${list}${more}.`, {
    metadata: { agentId: missing[0], agentIds: JSON.stringify(named), missing: missing.length.toString() },
  });
}

/** @param revision the agent's current revision */
export function revisionMismatch(revision: bigint): Refusal {
  return new Refusal(
    "REVISION_MISMATCH",
    "expected_revision: the agent has changed since. Read it again before you retry.",
    { metadata: { revision: revision.toString() } },
  );
}

/** @param oldest the log has all transitions after this revision */
export function revisionCompacted(oldest: bigint): Refusal {
  return new Refusal(
    "REVISION_COMPACTED",
    "The log no longer has the transitions after this revision. Start again with a snapshot.",
    { metadata: { oldestRevision: oldest.toString() } },
  );
}

/** @param newest the newest revision */
export function revisionInFuture(newest: bigint): Refusal {
  return new Refusal(
    "REVISION_IN_FUTURE",
    "This revision does not exist yet. Use a revision that this deployment returned.",
    { metadata: { newestRevision: newest.toString() } },
  );
}

export function reusedRequestId(requestId: string): Refusal {
  return new Refusal(
    "REQUEST_ID_REUSED",
    "request_id: was used for another request. Use a new one for each request, and the same one only for a retry.",
    {
      metadata: { requestId },
      violations: [{ field: "request_id", description: "was used with other content within the last 24 hours" }],
    },
  );
}

/** The delay before a retry, in milliseconds: by then some of the waiting changes are committed. */
const CHANGES_RETRY_MS = 250;

/** @param limit the maximum number of waiting changes */
export function tooManyChanges(agentId: string, limit: number): Refusal {
  return new Refusal(
    "LIMIT_EXCEEDED",
    `${limit} changes of the agent ${JSON.stringify(agentId)} are waiting already. Retry when some of them are answered.`,
    {
      metadata: { limit: "changesPerAgent", changesPerAgent: limit.toString(), agentId },
      // Jitter spreads the retries of callers that were rejected together.
      retryAfterMs: Math.ceil(CHANGES_RETRY_MS * (1 + Math.random())),
    },
  );
}

/** The values of a write that a constraint may reject. */
export interface Wanted {
  readonly username?: string | undefined;
  readonly email?: string | null | undefined;
  readonly agentId?: string | undefined;
  readonly userId?: bigint | undefined;
}

/** The error of a violated constraint for the caller; undefined if it is a defect of this program. */
export function conflictRefusal(constraint: string, wanted: Wanted): Refusal | undefined {
  const { username = "", email, agentId = "", userId } = wanted;
  switch (constraint) {
    case "users_username_key":
      return new Refusal(
        "USERNAME_TAKEN",
        `Another user has the username ${JSON.stringify(username)}. Choose another one.`,
        {
          metadata: { username },
        },
      );
    case "users_email_key":
      return new Refusal(
        "EMAIL_TAKEN",
        `Another user has the email address ${JSON.stringify(email)}. Choose another one.`,
        {
          metadata: { email: email ?? "" },
        },
      );
    case "agents_agent_id_key":
      return agentIdTaken(agentId);
    case "agents_user_id_key":
      return new Refusal("USER_HAS_AGENT", `The user ${userId} has an agent already. Delete it first, or move it.`, {
        metadata: { userId: userId?.toString() ?? "" },
      });
    case "agents_user_id_fkey":
      return userNotFound({ id: userId ?? 0n });
    default:
      return undefined;
  }
}

export function agentIdTaken(agentId: string): Refusal {
  return new Refusal(
    "AGENT_ID_TAKEN",
    `Another agent has the agent_id ${JSON.stringify(agentId)}. Choose another one: it is unique over all users and claws.`,
    {
      metadata: { agentId },
    },
  );
}
