import { createHash } from "node:crypto";
import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import type { Micros } from "../../common/contract/time.ts";
import type { Logger } from "../../common/logging/logger.ts";
import { Refusal } from "../domain/errors.ts";
import { type ClaimPaths, type JwtAlgorithm, principalOfClaims, type RoleNames } from "../domain/jwt-claims.ts";
import { type Caller, type Principal, unauthenticated } from "../domain/principal.ts";
import { onceExpired } from "./expiry.ts";

export interface JwtCheckOptions {
  readonly keys: JWTVerifyGetKey;
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly JwtAlgorithm[];
  /** How far an issuer's clock may be ahead of ours, in milliseconds. It does not extend a token's expiry. */
  readonly clockToleranceMs: number;
  readonly claims: ClaimPaths;
  readonly roleNames: RoleNames;
  readonly log: Pick<Logger, "warn">;
}

/**
 * A verified token is not verified again for this long, in milliseconds. So a withdrawn key is still accepted for this
 * long.
 */
const CACHE_MS = 60_000;
/** Verified tokens in memory. */
const CAPACITY = 10_000;
/** The latest instant that fits into `Micros`, in seconds. */
const LATEST_SECONDS = Math.floor(Number.MAX_SAFE_INTEGER / 1_000_000);

const EXPIRED = "The token has expired. Ask its issuer for a new one.";

/** Messages by jose's error codes. They are for the bearer, and never quote the token. */
const FAULTS: Readonly<Record<string, string>> = {
  ERR_JWT_EXPIRED: EXPIRED,
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: "The signature of the token does not match the keys of its issuer.",
  ERR_JWKS_NO_MATCHING_KEY: "The issuer has no key with the token's key id.",
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: "The token does not name its key (kid), and its issuer has several.",
  ERR_JOSE_ALG_NOT_ALLOWED: "The signature algorithm of the token is not allowed.",
  ERR_JOSE_NOT_SUPPORTED: "The signature algorithm of the token is not allowed.",
};

/** Codes of jose for a key set that could not be loaded: temporary, and not the caller's fault. */
const KEYS_UNAVAILABLE = new Set(["ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID", "ERR_JOSE_GENERIC"]);

interface CachedCaller {
  readonly caller: Caller;
  readonly expiresAt: Micros;
  readonly until: number;
}

/** Checks JSON Web Tokens of one issuer. */
export class JwtCheck {
  readonly #options: JwtCheckOptions;
  /** By the token's hash, oldest first. The token itself is not kept. */
  readonly #cache = new Map<string, CachedCaller>();
  #keysUnavailable = false;

  constructor(options: JwtCheckOptions) {
    this.#options = options;
  }

  /** @throws Refusal `UNAUTHENTICATED` */
  check(text: string): Caller | Promise<Caller> {
    const key = createHash("sha256").update(text).digest("base64");
    const known = this.#cache.get(key);
    if (known === undefined || performance.now() >= known.until) return this.#verify(text, key);
    if (known.expiresAt <= now()) throw unauthenticated(EXPIRED);
    return known.caller;
  }

  async #verify(text: string, key: string): Promise<Caller> {
    const { keys, issuer, audience, algorithms, clockToleranceMs, claims, roleNames } = this.#options;
    let payload: JWTPayload;
    try {
      const verified = await jwtVerify(text, keys, {
        issuer,
        audience,
        algorithms: [...algorithms],
        clockTolerance: clockToleranceMs / 1_000,
        requiredClaims: ["exp"],
      });
      payload = verified.payload;
      this.#keysUnavailable = false;
    } catch (error) {
      throw this.#refusal(error, text);
    }
    const expiresAt = Math.floor(Math.min(payload.exp ?? 0, LATEST_SECONDS) * 1_000_000);
    // The tolerance is only for tokens that are not valid yet. It does not extend their expiry.
    if (expiresAt <= now()) throw unauthenticated(EXPIRED);
    const claimed = principalOfClaims(payload, claims, roleNames);
    if ("fault" in claimed) throw unauthenticated(`The token is not valid here: ${claimed.fault}.`);
    // RFC 7519, 4.1.7 demands a string. jose does not check it.
    const jti: unknown = payload.jti;
    if (jti !== undefined && typeof jti !== "string") {
      throw unauthenticated("The token is not valid here: the claim jti must be a string.");
    }
    const { name, grant } = claimed;
    const principal: Principal = { ...grant, name, credential: credentialOf(jti), expiresAt };
    const caller: Caller = {
      principal,
      whileValid: (end) => onceExpired(expiresAt, now, () => end(unauthenticated(EXPIRED))),
    };
    this.#keep(key, { caller, expiresAt, until: performance.now() + CACHE_MS });
    return caller;
  }

  #keep(key: string, cached: CachedCaller): void {
    this.#cache.delete(key);
    this.#cache.set(key, cached);
    if (this.#cache.size <= CAPACITY) return;
    const [oldest] = this.#cache.keys();
    if (oldest !== undefined) this.#cache.delete(oldest);
  }

  #refusal(error: unknown, text: string): Refusal {
    const code = error instanceof errors.JOSEError ? error.code : undefined;
    if (code === undefined || KEYS_UNAVAILABLE.has(code)) {
      // Log only the first failure of a series.
      if (!this.#keysUnavailable)
        this.#options.log.warn(
          { event: "jwt.keys_unavailable", err: error },
          "failed to load the keys of JSON Web Tokens",
        );
      this.#keysUnavailable = true;
      return new Refusal(
        "UNAUTHENTICATED",
        "The keys of the token's issuer are not available at the moment. Try again.",
        {
          retryAfterMs: 5_000,
        },
      );
    }
    if (error instanceof errors.JWTClaimValidationFailed) {
      return unauthenticated(`The token is not valid here, or not yet: the claim ${error.claim} does not match.`);
    }
    const why = FAULTS[code] ?? (isJwt(text) ? "The token is not valid here." : "The text is not a token.");
    return unauthenticated(why);
  }
}

/** This machine's clock: issuers set `exp` by real time. */
function now(): Micros {
  return Date.now() * 1_000;
}

/** The name of the credential in the audit log: with the token's `jti` if it has one. */
function credentialOf(jti: string | undefined): string {
  return jti === undefined ? "jwt" : `jwt:${jti.replaceAll(/[^\x21-\x7e]/g, "?").slice(0, 128)}`;
}

function isJwt(text: string): boolean {
  try {
    decodeJwt(text);
    return true;
  } catch {
    return false;
  }
}
