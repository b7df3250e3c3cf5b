import { createHash } from "node:crypto";
import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import type { Micros } from "../contract/time.ts";
import { Refusal } from "../domain/errors.ts";
import { type ClaimPaths, type JwtAlgorithm, principalOfClaims, type RoleNames } from "../domain/jwt-claims.ts";
import { type Caller, type Principal, unauthenticated } from "../domain/principal.ts";
import { onceExpired } from "./expiry.ts";

export interface JwtCheckOptions {
  readonly keys: JWTVerifyGetKey;
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly JwtAlgorithm[];
  /** How far an issuer's clock may be ahead of ours, in milliseconds. What has expired has expired. */
  readonly clockToleranceMs: number;
  readonly claims: ClaimPaths;
  readonly roleNames: RoleNames;
  readonly log: { warn(facts: object, message: string): void };
}

/** For so long a token that was checked is not checked again: a key that was withdrawn is heeded after it. */
const REMEMBER_MS = 60_000;
const CAPACITY = 10_000;
/** The latest instant that `Micros` can say, in seconds. */
const LATEST_SECONDS = Math.floor(Number.MAX_SAFE_INTEGER / 1_000_000);

const EXPIRED = "This token has expired. Ask its issuer for a new one.";

/** What is wrong with a token, by jose's name for it: for its bearer, who may know; never quoting the token. */
const FAULTS: Readonly<Record<string, string>> = {
  ERR_JWT_EXPIRED: EXPIRED,
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: "The signature of this token does not fit the keys of its issuer.",
  ERR_JWKS_NO_MATCHING_KEY: "The issuer has no key that could have signed this token.",
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: "This token does not say which of its issuer's keys signed it.",
  ERR_JOSE_ALG_NOT_ALLOWED: "This token is signed in a way that is not allowed here.",
  ERR_JOSE_NOT_SUPPORTED: "This token is signed in a way that is not allowed here.",
};

/** Why keys could not be had, as jose and Node put it: not the caller's fault, and passing. */
const NO_KEYS = new Set(["ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID", "ERR_JOSE_GENERIC"]);

interface Remembered {
  readonly caller: Caller;
  readonly expiresAt: Micros;
  readonly until: number;
}

/** Checks JSON Web Tokens of one issuer. */
export class JwtCheck {
  readonly #options: JwtCheckOptions;
  /** By a hash of the token, which is kept nowhere. The oldest first. */
  readonly #remembered = new Map<string, Remembered>();
  #withoutKeys = false;

  constructor(options: JwtCheckOptions) {
    this.#options = options;
  }

  /** @throws Refusal `UNAUTHENTICATED` */
  check(text: string): Caller | Promise<Caller> {
    const key = createHash("sha256").update(text).digest("base64");
    const known = this.#remembered.get(key);
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
      this.#withoutKeys = false;
    } catch (error) {
      throw this.#refusal(error, text);
    }
    const expiresAt = Math.floor(Math.min(payload.exp ?? 0, LATEST_SECONDS) * 1_000_000);
    // The tolerance is for tokens that are too new: a right that has ended is not stretched.
    if (expiresAt <= now()) throw unauthenticated(EXPIRED);
    const claimed = principalOfClaims(payload, claims, roleNames);
    if ("fault" in claimed) throw unauthenticated(`This token lets nobody in: ${claimed.fault}.`);
    // RFC 7519, 4.1.7: a string. jose does not check it.
    const jti: unknown = payload.jti;
    if (jti !== undefined && typeof jti !== "string") {
      throw unauthenticated("This token lets nobody in: its claim jti must be a string.");
    }
    const { name, grant } = claimed;
    const principal: Principal = { ...grant, name, credential: credentialOf(jti), expiresAt };
    const caller: Caller = {
      principal,
      whileValid: (end) => onceExpired(expiresAt, now, () => end(unauthenticated(EXPIRED))),
    };
    this.#remember(key, { caller, expiresAt, until: performance.now() + REMEMBER_MS });
    return caller;
  }

  #remember(key: string, remembered: Remembered): void {
    this.#remembered.delete(key);
    this.#remembered.set(key, remembered);
    if (this.#remembered.size <= CAPACITY) return;
    const [oldest] = this.#remembered.keys();
    if (oldest !== undefined) this.#remembered.delete(oldest);
  }

  #refusal(error: unknown, text: string): Refusal {
    const code = error instanceof errors.JOSEError ? error.code : undefined;
    if (code === undefined || NO_KEYS.has(code)) {
      // Once for each time that it begins.
      if (!this.#withoutKeys) this.#options.log.warn({ err: error }, "the keys of JSON Web Tokens cannot be had");
      this.#withoutKeys = true;
      return new Refusal("UNAUTHENTICATED", "The keys to check this token by cannot be had at the moment. Try again.", {
        retryAfterMs: 5_000,
      });
    }
    if (error instanceof errors.JWTClaimValidationFailed) {
      return unauthenticated(`This token is not for here, or not yet: its claim ${error.claim} does not fit.`);
    }
    const why = FAULTS[code] ?? (isJwt(text) ? "This token cannot be used here." : "This is no token of any kind.");
    return unauthenticated(why);
  }
}

/** The clock that issuers go by. */
function now(): Micros {
  return Date.now() * 1_000;
}

/** As the audit log names it: the token's own number where it has one. */
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
