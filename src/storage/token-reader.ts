import type { Micros } from "../../common/contract/time.ts";
import type { Principal, Role } from "../domain/principal.ts";
import type { Database } from "./database.ts";
import { grantOf } from "./models/api-token.ts";
import { namedQuery } from "./queries.ts";

const READ_TOKENS = namedQuery("read-tokens");

/** A token with the hash that its bearer is checked by, and with its principal. */
export interface KnownToken {
  readonly keyId: string;
  readonly secretHash: Uint8Array;
  readonly principal: Principal;
  readonly expiresAt: Micros;
  readonly revoked: boolean;
}

/** The result of one statement. */
export interface TokenReading {
  /** The key ids of revocations after the requested one, in order. */
  readonly revoked: readonly string[];
  /** This reading includes all revocations up to this one. */
  readonly reached: bigint;
  /** The newest revocation. If it is greater than `reached`, there are more to read. */
  readonly newest: bigint;
  /** Names the history of the database. If it differs from before, revocation numbers do not continue. */
  readonly lineage: string;
  readonly tokens: ReadonlyMap<string, KnownToken>;
}

interface Row {
  readonly newest: bigint;
  readonly lineage: string;
  readonly read_at: Micros;
  readonly revoked: readonly string[];
  readonly reached: bigint | null;
  readonly key_id: string | null;
  readonly secret_hash: Buffer;
  readonly principal: string;
  readonly role: Role;
  readonly agent_ids: readonly string[] | null;
  readonly claw_identifier: string | null;
  readonly expires_at: Micros;
  readonly revoked_at: Micros | null;
}

/** The largest number of revocations in one reading. The query has the same limit. */
const MAX_REVOCATIONS = 1_000;

/** Reads the revocations after `after`, and the tokens of `keyIds`, in one statement. */
export async function readTokens(
  database: Pick<Database, "feed" | "clock">,
  after: bigint,
  keyIds: readonly string[],
): Promise<TokenReading> {
  const sentAt = performance.now();
  const { rows } = await database.feed.query<Row>({ ...READ_TOKENS, values: [after.toString(), keyIds] });
  const [first] = rows;
  if (first === undefined) throw new TypeError("api_token_counter has no row");
  database.clock.observe(first.read_at, sentAt);
  const tokens = new Map<string, KnownToken>();
  for (const row of rows) if (row.key_id !== null) tokens.set(row.key_id, knownToken(row.key_id, row));
  const full = first.revoked.length >= MAX_REVOCATIONS;
  return {
    revoked: first.revoked,
    reached: full && first.reached !== null ? first.reached : first.newest,
    newest: first.newest,
    lineage: first.lineage,
    tokens,
  };
}

function knownToken(keyId: string, row: Row): KnownToken {
  const principal: Principal = {
    ...grantOf(row),
    name: row.principal,
    credential: `token:${keyId}`,
    expiresAt: row.expires_at,
  };
  return {
    keyId,
    secretHash: row.secret_hash,
    principal,
    expiresAt: row.expires_at,
    revoked: row.revoked_at !== null,
  };
}
