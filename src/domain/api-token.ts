import type { Micros } from "../../common/contract/time.ts";
import type { Mutation, Page, PageQuery } from "./directories.ts";
import type { Grant } from "./principal.ts";

/** Valid tokens of one principal. Two, so that a new token can be rolled out before the old one is revoked. */
export const MAX_VALID_TOKENS = 2;

export const SHORTEST_TOKEN_LIFETIME_MS = 1_000;
export const LONGEST_TOKEN_LIFETIME_MS = 366 * 24 * 3_600_000;
export const DEFAULT_TOKEN_LIFETIME_MS = 90 * 24 * 3_600_000;

/** How long a token stays listed after it was revoked or expired, in milliseconds. */
export const TOKEN_RETENTION_MS = 90 * 24 * 3_600_000;

/** An API token without its secret. */
export interface ApiToken {
  readonly id: bigint;
  /** The public part: it identifies the token in lists, in the audit log and for its revocation. */
  readonly keyId: string;
  readonly principal: string;
  readonly grant: Grant;
  readonly createdAt: Micros;
  /** In the form of a transition's actor: `user:…`. */
  readonly createdBy: string;
  readonly expiresAt: Micros;
  readonly revoked: { readonly at: Micros; readonly by: string } | null;
}

export interface NewToken {
  readonly principal: string;
  readonly grant: Grant;
  /** `SHORTEST_TOKEN_LIFETIME_MS` to `LONGEST_TOKEN_LIFETIME_MS`. */
  readonly lifetimeMs: number;
}

/** A new token before it is stored. */
export interface MintedToken {
  /** The whole token, as its bearer sends it. The service shows it once and does not store it. */
  readonly secret: string;
  readonly keyId: string;
  /** SHA-256 of the secret, which the service stores. */
  readonly secretHash: Uint8Array;
}

export interface IssuedToken {
  readonly token: ApiToken;
  /** Undefined in the response to a repeated request: the service does not store it. */
  readonly secret: string | undefined;
}

/** Issues, lists and revokes API tokens. Methods reject with a `Refusal`. */
export interface TokenDirectory {
  /** @throws Refusal `LIMIT_EXCEEDED` while the principal has `MAX_VALID_TOKENS` valid tokens */
  issue(token: NewToken, mutation: Mutation): Promise<IssuedToken>;
  /** In order of issue. `principal` undefined: of all principals. */
  list(principal: string | undefined, page: PageQuery): Promise<Page<ApiToken>>;
  /**
   * A token that is revoked already stays unchanged.
   *
   * @throws Refusal `TOKEN_NOT_FOUND`
   */
  revoke(keyId: string, mutation: Mutation): Promise<ApiToken>;
}
