import type { Micros } from "../contract/time.ts";
import type { Mutation, Page, PageQuery } from "./directory.ts";
import type { Grant } from "./principal.ts";

/** Two, so that a new one can be rolled out before the old one is revoked. */
export const MOST_LIVE_TOKENS = 2;

export const SHORTEST_TOKEN_LIFETIME_MS = 1_000;
export const LONGEST_TOKEN_LIFETIME_MS = 366 * 24 * 3_600_000;
export const DEFAULT_TOKEN_LIFETIME_MS = 90 * 24 * 3_600_000;

/** How long a token is listed after it was revoked, or else has expired. */
export const TOKEN_RETENTION_MS = 90 * 24 * 3_600_000;

/** A token that this service issued, without its secret. */
export interface ApiToken {
  readonly id: bigint;
  /** The public part, by which it is found, named and revoked. */
  readonly keyId: string;
  readonly principal: string;
  readonly grant: Grant;
  readonly createdAt: Micros;
  /** As transitions name actors. */
  readonly createdBy: string;
  readonly expiresAt: Micros;
  readonly revoked: { readonly at: Micros; readonly by: string } | null;
}

export interface NewToken {
  readonly principal: string;
  readonly grant: Grant;
  readonly lifetimeMs: number;
}

/** A token that was made and is not issued yet. */
export interface MintedToken {
  /** What its bearer sends: shown once, kept by nobody here. */
  readonly secret: string;
  readonly keyId: string;
  /** SHA-256 of the secret: what is kept. */
  readonly secretHash: Uint8Array;
}

export interface IssuedToken {
  readonly token: ApiToken;
  /** Undefined in the answer to a repetition: nobody here knows it any more. */
  readonly secret: string | undefined;
}

/** The tokens, for who issues and revokes them. Every method refuses with a `Refusal`. */
export interface TokenDirectory {
  /** `LIMIT_EXCEEDED` while the principal has two that live. */
  issue(token: NewToken, mutation: Mutation): Promise<IssuedToken>;
  /** In the order in which they were issued; of one principal, or all. */
  list(principal: string | undefined, page: PageQuery): Promise<Page<ApiToken>>;
  /** Once revoked it stays as it is. `TOKEN_NOT_FOUND`. */
  revoke(keyId: string, mutation: Mutation): Promise<ApiToken>;
}
