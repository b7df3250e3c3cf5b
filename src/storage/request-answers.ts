import type { Knex } from "knex";
import type { Micros } from "../contract/time.ts";
import { toRfc3339 } from "../contract/time.ts";
import type { User } from "../domain/agent.ts";
import type { RequestKey } from "../domain/directory.ts";
import type { Database } from "./database.ts";
import { namedQuery } from "./queries.ts";
import { reusedRequestId } from "./refusals.ts";

const SWEEP_REQUEST_IDS = namedQuery("sweep-request-ids");
/** One statement's share: some milliseconds, and no lock that anybody waits for. */
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
 * Takes a principal's request_id for this transaction; false if it was taken before, by the same request or by another
 * one. Waits for another transaction that is taking it at this moment.
 */
export async function claimRequest(transaction: Knex.Transaction, request: RequestKey): Promise<boolean> {
  const { rows } = await transaction.raw<{ rows: { claimed: boolean }[] }>(
    "SELECT claim_request_id(?, ?, ?) AS claimed",
    [request.principal, request.id, request.fingerprint],
  );
  return rows[0]?.claimed === true;
}

/**
 * The user of the first answer; undefined if none was kept with it, or if this is no repetition.
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

/** Keeps the user of an answer for its repetitions. */
export async function keepAnswer(transaction: Knex.Transaction, request: RequestKey, user: User): Promise<void> {
  const state = {
    // A JSON number would lose digits of a large one.
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

/** Forgets the answers that are older than 24 hours, in small batches. Returns how many they were. */
export async function sweepRequestIds(database: Database): Promise<number> {
  let swept = 0;
  for (;;) {
    const { rowCount } = await database.feed.query({ ...SWEEP_REQUEST_IDS, values: [SWEEP_BATCH] });
    swept += rowCount ?? 0;
    if ((rowCount ?? 0) < SWEEP_BATCH) return swept;
  }
}
