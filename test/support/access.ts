import { mintToken } from "../../src/access/token-text.ts";
import type { IssuedToken, TokenDirectory } from "../../src/domain/api-token.ts";
import type { Grant } from "../../src/domain/principal.ts";
import { openDatabase } from "../../src/storage/database.ts";
import { createTokenDirectory } from "../../src/storage/token-directory.ts";
import { unique } from "./service.ts";

/** The listeners require credentials. */
export const CREDENTIALS = { kind: "credentials", jwt: undefined, certificatePrincipals: undefined } as const;

export const forAgents = (...agentIds: string[]): Grant => ({
  role: "agent",
  scope: { kind: "agents", agentIds: new Set(agentIds) },
});
export const forClaw = (clawIdentifier: string): Grant => ({ role: "agent", scope: { kind: "claw", clawIdentifier } });

export interface Mint extends AsyncDisposable {
  readonly tokens: TokenDirectory;
  /** A token of a principal of its own. Default: valid for an hour. */
  issue(grant: Grant, lifetimeMs?: number): Promise<IssuedToken & { readonly secret: string }>;
}

/** Issues tokens directly on a database, as the command line does. */
export function openMint(databaseUrl: string): Mint {
  const database = openDatabase({ url: databaseUrl, onIdleError: () => undefined });
  const tokens = createTokenDirectory(database, mintToken);
  return {
    tokens,
    async issue(grant, lifetimeMs = 3_600_000) {
      const token = { principal: unique(grant.role), grant, lifetimeMs };
      const issued = await tokens.issue(token, { actor: "user:test", request: undefined });
      if (issued.secret === undefined) throw new Error("a new token has a secret");
      return { ...issued, secret: issued.secret };
    },
    [Symbol.asyncDispose]: () => database.close(),
  };
}
