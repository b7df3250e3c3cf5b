import type { Knex } from "knex";
import {
  type ApiToken as ApiTokenValue,
  type IssuedToken,
  MAX_VALID_TOKENS,
  type MintedToken,
  type NewToken,
  TOKEN_RETENTION_MS,
  type TokenDirectory,
} from "../domain/api-token.ts";
import type { RequestKey } from "../domain/directories.ts";
import { Refusal } from "../domain/errors.ts";
import type { Database } from "./database.ts";
import { ApiToken } from "./models/api-token.ts";
import { pageOf } from "./page.ts";
import { namedQuery } from "./queries.ts";
import { reusedRequestId } from "./refusals.ts";
import { claimRequest } from "./request-answers.ts";
import { retryChange, retryRead } from "./retries.ts";

const SWEEP_TOKENS = namedQuery("sweep-tokens");
/** Rows in one statement: it takes some milliseconds, and other transactions do not wait for its locks. */
const SWEEP_BATCH = 1_000;

/**
 * The directory of API tokens in the database.
 *
 * @param mint makes new tokens
 */
export function createTokenDirectory(
  database: Pick<Database, "knex" | "clock" | "changes">,
  mint: () => MintedToken,
): TokenDirectory {
  const { knex } = database;

  async function issueWith(minted: MintedToken, token: NewToken, actor: string, transaction: Knex.Transaction) {
    await takeCounter(transaction);
    const valid = await ApiToken.query(transaction)
      .where({ principal: token.principal })
      .whereNull("revoked_at")
      .whereRaw("expires_at > clock_timestamp()")
      .resultSize();
    if (valid >= MAX_VALID_TOKENS) throw tooManyTokens(token.principal);
    const { grant, lifetimeMs, principal } = token;
    const { scope } = grant;
    const { rows } = await transaction.raw<{ rows: { key_id: string }[] }>(
      `INSERT INTO api_tokens (key_id, secret_hash, principal, role, agent_ids, claw_identifier, created_by, expires_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, clock_timestamp() + ? * interval '1 millisecond') RETURNING key_id`,
      [
        minted.keyId,
        Buffer.from(minted.secretHash),
        principal,
        grant.role,
        scope?.kind === "agents" ? [...scope.agentIds] : null,
        scope?.kind === "claw" ? scope.clawIdentifier : null,
        actor,
        lifetimeMs,
      ],
    );
    return await existing(transaction, rows[0]?.key_id ?? minted.keyId);
  }

  return {
    async issue(token, { actor, request, call }): Promise<IssuedToken> {
      const minted = mint();
      return await retryChange(database, call, request !== undefined, async (transaction): Promise<IssuedToken> => {
        if (request !== undefined && !(await claimRequest(transaction, request))) {
          const former = await tokenOfAnswer(transaction, request);
          const issued = await existing(transaction, former);
          // After a lost connection, this attempt may be the one that was committed. Then its secret is the right one.
          return { token: issued, secret: former === minted.keyId ? minted.secret : undefined };
        }
        const issued = await issueWith(minted, token, actor, transaction);
        if (request !== undefined) await keepToken(transaction, request, issued.keyId);
        return { token: issued, secret: minted.secret };
      });
    },

    async list(principal, { after, limit }) {
      return await retryRead(async () => {
        const query = ApiToken.query(knex)
          .select(...ApiToken.shown)
          .orderBy("id")
          .limit(limit + 1);
        if (principal !== undefined) query.where({ principal });
        if (after !== undefined) query.where("id", ">", after.toString());
        const tokens = await query;
        return pageOf(
          tokens.map((token) => token.toDomain()),
          limit,
          ({ id }) => id,
        );
      });
    },

    async revoke(keyId, { actor, request, call }) {
      return await retryChange(database, call, true, async (transaction) => {
        if (request !== undefined && !(await claimRequest(transaction, request))) {
          return await existing(transaction, await tokenOfAnswer(transaction, request));
        }
        await takeCounter(transaction);
        await transaction.raw(
          `WITH one AS (SELECT id FROM api_tokens WHERE key_id = ? AND revoked_at IS NULL),
           next AS (UPDATE api_token_counter SET revocation = revocation + 1 WHERE EXISTS (SELECT FROM one) RETURNING revocation)
           UPDATE api_tokens t SET revoked_at = clock_timestamp(), revoked_by = ?, revocation = next.revocation
           FROM one, next WHERE t.id = one.id`,
          [keyId, actor],
        );
        const token = await existing(transaction, keyId);
        if (request !== undefined) await keepToken(transaction, request, keyId);
        return token;
      });
    },
  };
}

/**
 * Deletes tokens that ended before the retention time, in batches.
 *
 * @returns the number of deleted tokens
 */
export async function sweepTokens(database: Pick<Database, "feed">): Promise<number> {
  let swept = 0;
  for (;;) {
    const { rowCount } = await database.feed.query({ ...SWEEP_TOKENS, values: [SWEEP_BATCH, TOKEN_RETENTION_MS] });
    swept += rowCount ?? 0;
    if ((rowCount ?? 0) < SWEEP_BATCH) return swept;
  }
}

/** Serialises changes of tokens: the lock is held until the commit. */
async function takeCounter(transaction: Knex.Transaction): Promise<void> {
  await transaction.raw("SELECT revocation FROM api_token_counter FOR UPDATE");
}

async function existing(transaction: Knex.Transaction, keyId: string): Promise<ApiTokenValue> {
  const token = await ApiToken.query(transaction)
    .select(...ApiToken.shown)
    .findOne({ key_id: keyId });
  if (token === undefined) throw tokenNotFound(keyId);
  return token.toDomain();
}

async function keepToken(transaction: Knex.Transaction, request: RequestKey, keyId: string): Promise<void> {
  await transaction.raw("UPDATE request_ids SET token_key_id = ? WHERE request_id = ? AND principal = ?", [
    keyId,
    request.id,
    request.principal,
  ]);
}

/** @throws Refusal `REQUEST_ID_REUSED` */
async function tokenOfAnswer(transaction: Knex.Transaction, request: RequestKey): Promise<string> {
  const { rows } = await transaction.raw<{ rows: { fingerprint: string; token_key_id: string | null }[] }>(
    `SELECT fingerprint, token_key_id FROM request_ids
     WHERE request_id = ? AND principal IN (?, '') AND created_at > clock_timestamp() - interval '24 hours'
     ORDER BY principal DESC LIMIT 1`,
    [request.id, request.principal],
  );
  const [row] = rows;
  if (row?.fingerprint !== request.fingerprint || row.token_key_id === null) throw reusedRequestId(request.id);
  return row.token_key_id;
}

function tokenNotFound(keyId: string): Refusal {
  return new Refusal("TOKEN_NOT_FOUND", "key_id: no token has this key id.", { metadata: { keyId } });
}

function tooManyTokens(principal: string): Refusal {
  return new Refusal(
    "LIMIT_EXCEEDED",
    `The principal has ${MAX_VALID_TOKENS} valid tokens already. Revoke one, or wait until it expires.`,
    { metadata: { limit: "maxLiveTokens", principal } },
  );
}
