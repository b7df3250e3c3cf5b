import type { Micros } from "../../common/contract/time.ts";
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

/** Authenticates a call by its credentials. A token takes precedence over the certificate of the connection. */
export function createAuthenticator(means: {
  readonly tokens: Pick<TokenCheck, "check">;
  readonly jwt: Pick<JwtCheck, "check"> | undefined;
  readonly certificates: CertificatePrincipals;
}): Authenticate {
  const { tokens, jwt, certificates } = means;
  return ({ authorization, peer }) => {
    if (authorization !== null) {
      const [, token] = /^Bearer +([^\s,]+)$/i.exec(authorization) ?? [];
      if (token === undefined) throw unauthenticated(NOT_BEARER);
      if (token.startsWith(TOKEN_PREFIX)) return tokens.check(token);
      if (jwt === undefined) throw unauthenticated(JWT_NOT_CONFIGURED);
      return jwt.check(token);
    }
    const principal = principalOfPeer(certificates, peer);
    if (peer === undefined || principal === undefined) throw unauthenticated(NO_CREDENTIAL);
    // It was valid when the connection was made, which may be long ago.
    const { expiresAt } = peer;
    if (expiresAt <= now()) throw unauthenticated(CERTIFICATE_EXPIRED);
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
