import type { Micros } from "../../common/contract/time.ts";
import { Refusal } from "../domain/errors.ts";
import { ANYONE, type Authenticate, type Caller, unauthenticated } from "../domain/principal.ts";
import { type CertificatePrincipals, principalOfPeer } from "./certificate-principals.ts";
import { onceExpired } from "./expiry.ts";
import type { JwtCheck } from "./jwt-check.ts";
import type { TokenCheck } from "./token-check.ts";
import { TOKEN_PREFIX } from "./token-text.ts";

const ANONYMOUS_CALLER: Caller = { principal: ANYONE };

/** Authenticates each caller as anonymous. Only for listeners that are reachable from this machine alone. */
export const allowAnonymous: Authenticate = () => ANONYMOUS_CALLER;

const NO_CREDENTIAL =
  "No credential. Send a token as `authorization: Bearer …`, or connect with a client certificate that this service knows.";
const NOT_BEARER = "authorization: must be `Bearer` and one token.";
const CERTIFICATE_EXPIRED = "The client certificate has expired. Connect with a new one.";
const JWT_NOT_CONFIGURED =
  "The token is not an API token of this service, and JSON Web Tokens are not configured. Use an API token.";

/** The credential of a call that could not be authenticated. */
export type FailureKind = "missing" | "malformed" | "api_token" | "jwt" | "certificate";

/** Authenticates a call by its credentials. A token takes precedence over the certificate of the connection. */
export function createAuthenticator(means: {
  readonly tokens: Pick<TokenCheck, "check">;
  readonly jwt: Pick<JwtCheck, "check"> | undefined;
  readonly certificates: CertificatePrincipals;
  /** Called for each call whose credential is missing or invalid, and not while credentials cannot be checked. */
  onFailure?(kind: FailureKind): void;
}): Authenticate {
  const { tokens, jwt, certificates } = means;

  function fail(kind: FailureKind, message: string): never {
    means.onFailure?.(kind);
    throw unauthenticated(message);
  }

  /** Counts the failures of a check. */
  function counted(kind: FailureKind, check: () => Caller | Promise<Caller>): Caller | Promise<Caller> {
    const failed = (thrown: unknown): never => {
      if (thrown instanceof Refusal && thrown.reason === "UNAUTHENTICATED") means.onFailure?.(kind);
      throw thrown;
    };
    try {
      const caller = check();
      return caller instanceof Promise ? caller.catch(failed) : caller;
    } catch (thrown) {
      return failed(thrown);
    }
  }

  return ({ authorization, peer }) => {
    if (authorization !== null) {
      const [, token] = /^Bearer +([^\s,]+)$/i.exec(authorization) ?? [];
      if (token === undefined) return fail("malformed", NOT_BEARER);
      if (token.startsWith(TOKEN_PREFIX)) return counted("api_token", () => tokens.check(token));
      if (jwt === undefined) return fail("jwt", JWT_NOT_CONFIGURED);
      return counted("jwt", () => jwt.check(token));
    }
    const principal = principalOfPeer(certificates, peer);
    if (peer === undefined || principal === undefined) return fail("missing", NO_CREDENTIAL);
    // It was valid when the connection was made, which may be long ago.
    const { expiresAt } = peer;
    if (expiresAt <= now()) return fail("certificate", CERTIFICATE_EXPIRED);
    return {
      principal: { ...principal, expiresAt },
      whileValid: (end) => onceExpired(expiresAt, now, () => end(unauthenticated(CERTIFICATE_EXPIRED))),
    };
  };
}

/** This machine's clock, which TLS also verifies certificates by. */
function now(): Micros {
  return Date.now() * 1_000;
}
