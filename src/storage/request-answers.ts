import type { Knex } from "knex";
import type { Micros } from "../../common/contract/time.ts";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { User } from "../domain/agent.ts";
import type { RequestKey } from "../domain/directories.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";
import { reusedRequestId } from "./refusals.ts";

const SWEEP_REQUEST_IDS = namedQuery("sweep-request-ids");
/** Rows in one statement: it takes some milliseconds, and other transactions do not wait for its locks. */
const SWEEP_BATCH = 1_000;

interface AnswerRow {
  readonly fingerprint: string;
  readonly id: bigint | null;
  readonly username: string;
  readonly email: string | null;
  readonly display_name: string;
  readonly created_at: Micros;
  readonly agent_id: string | null;
}

/**
 * Claims a principal's request_id for this transaction. Waits for a concurrent claim.
 *
 * @returns false if it was used before, by the same request or by another one
 */
export async function claimRequest(transaction: Knex.Transaction, request: RequestKey): Promise<boolean> {
  const { rows } = await transaction.raw<{ rows: { claimed: boolean }[] }>(
    "SELECT claim_request_id(?, ?, ?) AS claimed",
    [request.principal, request.id, request.fingerprint],
  );
  return rows[0]?.claimed === true;
}

/**
 * The stored response of a repeated request: its user, if it has one. Undefined: the request is not a repetition.
 *
 * @throws Refusal `REQUEST_ID_REUSED`
 */
export async function firstAnswer(
  knex: Knex,
  request: RequestKey,
): Promise<{ readonly user: User | undefined } | undefined> {
  const { rows } = await knex.raw<{ rows: AnswerRow[] }>(
    `SELECT r.fingerprint, u.*
     FROM request_ids r, jsonb_populate_record(NULL::user_states, coalesce(r.user_state, '{}')) u
     WHERE r.request_id = ? AND r.principal IN (?, '') AND r.created_at > clock_timestamp() - interval '24 hours'
     ORDER BY r.principal DESC LIMIT 1`,
    [request.id, request.principal],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  if (row.fingerprint !== request.fingerprint) throw reusedRequestId(request.id);
  if (row.id === null) return { user: undefined };
  const { id, username, email, display_name: displayName, created_at: createdAt, agent_id: agentId } = row;
  return { user: { id, username, email, displayName, createdAt, agentId } };
}

/** Stores the user of a response for repetitions of the request. */
export async function keepAnswer(transaction: Knex.Transaction, request: RequestKey, user: User): Promise<void> {
  const state = {
    // A JSON number would lose digits of a large bigint.
    id: user.id.toString(),
    username: user.username,
    email: user.email,
    display_name: user.displayName,
    created_at: toRfc3339(user.createdAt),
    agent_id: user.agentId,
  };
  await transaction.raw("UPDATE request_ids SET user_state = ?::jsonb WHERE request_id = ? AND principal = ?", [
    JSON.stringify(state),
    request.id,
    request.principal,
  ]);
}

/**
 * Deletes responses that are older than 24 hours, in batches.
 *
 * @returns the number of deleted responses
 */
export async function sweepRequestIds(database: Database): Promise<number> {
  let swept = 0;
  for (;;) {
    const { rowCount } = await database.feed.query({ ...SWEEP_REQUEST_IDS, values: [SWEEP_BATCH] });
    swept += rowCount ?? 0;
    if ((rowCount ?? 0) < SWEEP_BATCH) return swept;
  }
}
