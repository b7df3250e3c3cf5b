import { Model, snakeCaseMappers } from "objection";
import type { Micros } from "../../../common/contract/time.ts";
import type { ApiToken as ApiTokenValue } from "../../domain/api-token.ts";
import type { Grant, Role } from "../../domain/principal.ts";

/** The columns with the rights of a token. */
export interface GrantColumns {
  readonly role: Role;
  readonly agent_ids: readonly string[] | null;
  readonly claw_identifier: string | null;
}

/** The constraints of the table allow no other values. */
export function grantOf({ role, agent_ids, claw_identifier }: GrantColumns): Grant {
  if (role !== "agent") return { role };
  if (agent_ids !== null) return { role, scope: { kind: "agents", agentIds: new Set(agent_ids) } };
  if (claw_identifier !== null) return { role, scope: { kind: "claw", clawIdentifier: claw_identifier } };
  throw new TypeError("a token of an agent names neither agents nor a claw");
}

/** An API token without its hash, which other statements write and compare. */
export class ApiToken extends Model {
  static override readonly tableName = "api_tokens";
  static override readonly columnNameMappers = snakeCaseMappers();
  /** All columns except the hash. */
  static readonly shown: readonly string[] = [
    "id",
    "key_id",
    "principal",
    "role",
    "agent_ids",
    "claw_identifier",
    "created_at",
    "created_by",
    "expires_at",
    "revoked_at",
    "revoked_by",
  ];

  declare readonly id: bigint;
  declare readonly keyId: string;
  declare readonly principal: string;
  declare readonly role: Role;
  declare readonly agentIds: readonly string[] | null;
  declare readonly clawIdentifier: string | null;
  declare readonly createdAt: Micros;
  declare readonly createdBy: string;
  declare readonly expiresAt: Micros;
  declare readonly revokedAt: Micros | null;
  declare readonly revokedBy: string | null;

  toDomain(): ApiTokenValue {
    const { id, keyId, principal, role, createdAt, createdBy, expiresAt, revokedAt, revokedBy } = this;
    return {
      id,
      keyId,
      principal,
      grant: grantOf({ role, agent_ids: this.agentIds, claw_identifier: this.clawIdentifier }),
      createdAt,
      createdBy,
      expiresAt,
      revoked: revokedAt === null || revokedBy === null ? null : { at: revokedAt, by: revokedBy },
    };
  }
}
