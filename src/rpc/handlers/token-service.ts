import type { ServiceImpl } from "@connectrpc/connect";
import { type IssueTokenRequest, TokenService } from "../../../gen/harborforge/agents/v1/token_service_pb.ts";
import { DEFAULT_TOKEN_LIFETIME_MS } from "../../domain/api-token.ts";
import type { Grant } from "../../domain/principal.ts";
import { durationMs, pageSizeOf } from "../../domain/validation.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { required } from "../convert/request.ts";
import { roleOf, tokenMessage } from "../convert/token.ts";
import type { Backend } from "./backend.ts";
import { mutationOf } from "./mutation.ts";

const METHODS = TokenService.method;

/** Implements `TokenService`. Refusals are thrown unchanged; the pipeline turns them into errors. */
export function createTokenService({ tokens }: Pick<Backend, "tokens">): ServiceImpl<typeof TokenService> {
  return {
    async issueToken(request, context) {
      const { principal, lifetime } = request;
      const lifetimeMs = lifetime === undefined ? DEFAULT_TOKEN_LIFETIME_MS : durationMs(lifetime);
      const mutation = mutationOf(context, METHODS.issueToken, request);
      const issued = await tokens.issue({ principal, grant: grantOf(request), lifetimeMs }, mutation);
      return { token: tokenMessage(issued.token), secret: issued.secret ?? "" };
    },

    async listTokens(request) {
      const position = readPageToken(METHODS.listTokens, request, request.pageToken);
      const page = await tokens.list(request.principal || undefined, {
        after: position?.after,
        limit: pageSizeOf(request.pageSize),
      });
      return {
        tokens: page.rows.map(tokenMessage),
        nextPageToken:
          page.next === undefined ? "" : writePageToken(METHODS.listTokens, request, { after: page.next, asOf: 0n }),
      };
    },

    async revokeToken(request, context) {
      const mutation = mutationOf(context, METHODS.revokeToken, request);
      return { token: tokenMessage(await tokens.revoke(request.keyId, mutation)) };
    },
  };
}

/**
 * The rules of the contract ensure that a token of role agent has agents or a claw, and that other tokens have neither.
 */
function grantOf({ role: value, agentIds, clawIdentifier }: IssueTokenRequest): Grant {
  const role = required(roleOf(value), "role");
  if (role !== "agent") return { role };
  if (clawIdentifier !== "") return { role, scope: { kind: "claw", clawIdentifier } };
  return { role, scope: { kind: "agents", agentIds: new Set(agentIds) } };
}
