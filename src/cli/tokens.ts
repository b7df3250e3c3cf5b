import { toRfc3339 } from "../../common/contract/time.ts";
import type { ApiToken } from "../domain/api-token.ts";
import type { Flags } from "./command.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { printable } from "./terminal/printable.ts";
import { withTokens } from "./token-directory.ts";

/** `tokens list`: lists all tokens without their secrets, one in a line. */
export function listTokensCommand(
  process: NodeJS.Process,
  flags: Flags,
  { principal }: { readonly principal?: string },
): Promise<number> {
  return withTokens(process, flags, async (tokens) => {
    process.stdout.write(`${["KEY", "ROLE", "PRINCIPAL", "EXPIRES", "STATE", "FOR"].join("\t")}\n`);
    for (let after: bigint | undefined, more = true; more; ) {
      const page = await tokens.list(principal, { after, limit: 1_000 });
      for (const token of page.rows) process.stdout.write(`${lineOf(token)}\n`);
      after = page.next;
      more = after !== undefined;
    }
    return EXIT_OK;
  });
}

/** `tokens revoke`: revokes a token, with effect within a second. */
export function revokeTokenCommand(process: NodeJS.Process, flags: Flags, keyId: string): Promise<number> {
  return withTokens(process, flags, async (tokens, actor, audit) => {
    const { principal, grant, revoked } = await tokens.revoke(keyId, { actor, request: undefined });
    audit({ method: "tokens revoke", keyId, principal, role: grant.role });
    const when = revoked === null ? "" : `, at ${toRfc3339(revoked.at)} by ${revoked.by}`;
    process.stdout.write(`${printable(`${keyId} of ${principal} is revoked${when}.`)}\n`);
    return EXIT_OK;
  });
}

function lineOf({ keyId, grant, principal, expiresAt, revoked }: ApiToken): string {
  const { scope } = grant;
  const state = revoked !== null ? "revoked" : expiresAt <= Date.now() * 1_000 ? "expired" : "valid";
  const whom =
    scope === undefined ? "" : scope.kind === "claw" ? `claw ${scope.clawIdentifier}` : [...scope.agentIds].join(",");
  return [keyId, grant.role, principal, toRfc3339(expiresAt), state, whom].map(printable).join("\t");
}
