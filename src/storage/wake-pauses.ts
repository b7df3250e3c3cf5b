import type { Knex } from "knex";
import { toRfc3339 } from "../../common/contract/time.ts";
import type { RequestKey } from "../domain/directories.ts";
import { invalidField } from "../domain/errors.ts";
import type { Pause, PauseTarget } from "../domain/wake.ts";
import type { WakeDirectory } from "../domain/wake-directory.ts";
import type { Database } from "./database.ts";
import { pageOf } from "./page.ts";
import { agentNotFound, reusedRequestId } from "./refusals.ts";
import { claimRequest } from "./request-answers.ts";
import { retryChange, retryRead } from "./retries.ts";
import { type PauseJson, pauseFromJson } from "./wake-row.ts";

/** The pauses of wakes. A pause takes the lock that offers take: after its commit no offer is made. */
export function createPauses(
  database: Pick<Database, "knex" | "clock" | "changes">,
): Pick<WakeDirectory, "pause" | "resume" | "pauses"> {
  const { knex } = database;
  return {
    async pause(target, until, note, { actor, request, call }) {
      return await retryChange(database, call, true, async (transaction) => {
        if (request !== undefined && !(await claimRequest(transaction, request))) {
          return required(await storedPause(transaction, request));
        }
        const agent = await lock(transaction, target);
        const moment = until === undefined ? null : toRfc3339(until);
        const {
          rows: [clock],
        } = await transaction.raw<{ rows: { passed: boolean | null }[] }>(
          "SELECT ?::timestamptz <= clock_timestamp() AS passed",
          [moment],
        );
        if (clock?.passed === true) throw invalidField("until", "must be in the future");
        const isAgent = "agentId" in target;
        const {
          rows: [row],
        } = await transaction.raw<{ rows: { id: bigint }[] }>(
          `INSERT INTO wake_pauses AS p (agent, agent_id, claw_identifier, since, until, note, actor)
           VALUES (?, ?, ?, clock_timestamp(), ?, ?, ?)
           ON CONFLICT (${isAgent ? "agent" : "claw_identifier"}) DO UPDATE
           SET until = excluded.until, note = excluded.note, actor = excluded.actor,
             since = CASE WHEN p.until <= clock_timestamp() THEN excluded.since ELSE p.since END
           RETURNING p.id`,
          [agent, isAgent ? target.agentId : null, isAgent ? null : target.clawIdentifier, moment, note, actor],
        );
        const {
          rows: [stored],
        } = await transaction.raw<{ rows: { pause: PauseJson }[] }>(
          "SELECT p.pause FROM pauses_in_force p WHERE p.id = ?",
          [row?.id.toString() ?? null],
        );
        // It has ended since.
        if (stored === undefined) throw invalidField("until", "must be in the future");
        if (request !== undefined) await keepPause(transaction, request, stored.pause);
        return pauseFromJson(stored.pause);
      });
    },

    async resume(target, { request, call }) {
      await retryChange(database, call, true, async (transaction) => {
        if (request !== undefined && !(await claimRequest(transaction, request))) {
          await storedPause(transaction, request);
          return;
        }
        const agent = await lock(transaction, target);
        const [column, value] = "agentId" in target ? ["agent", agent] : ["claw_identifier", target.clawIdentifier];
        await transaction("wake_pauses").where(String(column), value).delete();
      });
    },

    async pauses({ after, limit }) {
      return await retryRead(async () => {
        const { rows } = await knex.raw<{ rows: { id: bigint; pause: PauseJson }[] }>(
          "SELECT p.id, p.pause FROM pauses_in_force p WHERE p.id > ? ORDER BY p.id LIMIT ?",
          [(after ?? 0n).toString(), limit + 1],
        );
        const page = pageOf(rows, limit, ({ id }) => id);
        return { rows: page.rows.map(({ pause }) => pauseFromJson(pause)), next: page.next };
      });
    },
  };
}

/**
 * Takes the lock of an agent or of a claw, until the end of the transaction.
 *
 * @returns the number of the agent; null for a claw
 * @throws Refusal `AGENT_NOT_FOUND`
 */
async function lock(transaction: Knex.Transaction, target: PauseTarget): Promise<string | null> {
  if ("clawIdentifier" in target) {
    await transaction.raw("SELECT pg_advisory_xact_lock(wake_lock_of_claw(?))", [target.clawIdentifier]);
    return null;
  }
  const {
    rows: [row],
  } = await transaction.raw<{ rows: { agent: bigint }[] }>(
    "SELECT l.agent FROM agents a JOIN agent_liveness l ON l.agent = a.id WHERE a.agent_id = ? FOR UPDATE OF l",
    [target.agentId],
  );
  if (row === undefined) throw agentNotFound({ agentId: target.agentId });
  return row.agent.toString();
}

async function keepPause(
  transaction: Knex.Transaction,
  { id, principal }: RequestKey,
  pause: PauseJson,
): Promise<void> {
  await transaction.raw("UPDATE request_ids SET pause_state = ?::jsonb WHERE request_id = ? AND principal = ?", [
    JSON.stringify(pause),
    id,
    principal,
  ]);
}

/**
 * The stored response of a repeated request; undefined: it has none.
 *
 * @throws Refusal `REQUEST_ID_REUSED`
 */
async function storedPause(transaction: Knex.Transaction, request: RequestKey): Promise<Pause | undefined> {
  const {
    rows: [row],
  } = await transaction.raw<{ rows: { fingerprint: string; pause_state: PauseJson | null }[] }>(
    `SELECT fingerprint, pause_state FROM request_ids
     WHERE request_id = ? AND principal IN (?, '') AND created_at > clock_timestamp() - interval '24 hours'
     ORDER BY principal DESC LIMIT 1`,
    [request.id, request.principal],
  );
  if (row?.fingerprint !== request.fingerprint) throw reusedRequestId(request.id);
  return row.pause_state === null ? undefined : pauseFromJson(row.pause_state);
}

function required(pause: Pause | undefined): Pause {
  if (pause === undefined) throw new TypeError("the stored response has no pause");
  return pause;
}
