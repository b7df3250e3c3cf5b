import { create } from "@bufbuild/protobuf";
import { timestampOf, timestampOrUnset } from "../../../common/contract/timestamps.ts";
import {
  type ApiToken as ApiTokenMessage,
  ApiTokenSchema,
  Role as RoleMessage,
} from "../../../gen/harborforge/agents/v1/token_pb.ts";
import type { ApiToken } from "../../domain/api-token.ts";
import { ROLES, type Role } from "../../domain/principal.ts";

/** The contract's values for the words of the domain. A missing one does not compile. */
export const ROLE_VALUES: Readonly<Record<Role, RoleMessage>> = {
  agent: RoleMessage.AGENT,
  service: RoleMessage.SERVICE,
  admin: RoleMessage.ADMIN,
  viewer: RoleMessage.VIEWER,
};

const ROLE_OF: ReadonlyMap<number, Role> = new Map(ROLES.map((role) => [ROLE_VALUES[role], role]));

/** Undefined for UNSPECIFIED and for numbers outside of the contract. */
export function roleOf(value: number): Role | undefined {
  return ROLE_OF.get(value);
}

export function tokenMessage(token: ApiToken): ApiTokenMessage {
  const { keyId, principal, grant, createdAt, createdBy, expiresAt, revoked } = token;
  const { scope } = grant;
  return create(ApiTokenSchema, {
    keyId,
    principal,
    role: ROLE_VALUES[grant.role],
    agentIds: scope?.kind === "agents" ? [...scope.agentIds] : [],
    clawIdentifier: scope?.kind === "claw" ? scope.clawIdentifier : "",
    createdAt: timestampOf(createdAt),
    createdBy,
    expiresAt: timestampOf(expiresAt),
    revokedAt: timestampOrUnset(revoked?.at ?? null),
    revokedBy: revoked?.by ?? "",
  });
}
