import type { Micros } from "../contract/time.ts";
import { ANYONE, type Authenticate, type Caller, unauthenticated } from "../domain/principal.ts";
import { type CertificatePrincipals, principalOfPeer } from "./certificate-principals.ts";
import { onceExpired } from "./expiry.ts";
import type { JwtCheck } from "./jwt-check.ts";
import type { TokenCheck } from "./token-check.ts";
import { TOKEN_PREFIX } from "./token-text.ts";

const ANONYMOUS_CALLER: Caller = { principal: ANYONE };

/** Lets everybody in: nobody else than this machine can reach the listeners. */
export const allowAnonymous: Authenticate = () => ANONYMOUS_CALLER;

const NOTHING_SHOWN =
  "This needs a credential: send a token as `authorization: Bearer …`, or a client certificate that is known here.";
const NOT_BEARER = "The authorization header must be `Bearer` and one token.";
const CERTIFICATE_EXPIRED = "This client certificate has expired. Connect with a new one.";
const NO_JWT = "This is no token of this service, and other tokens are not taken here.";

/** Finds out who calls by what a call shows. A token that is sent counts, whatever certificate the connection has. */
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
      if (jwt === undefined) throw unauthenticated(NO_JWT);
      return jwt.check(token);
    }
    const principal = principalOfPeer(certificates, peer);
    if (peer === undefined || principal === undefined) throw unauthenticated(NOTHING_SHOWN);
    // It was good when the connection was made, which may be long ago.
    const { expiresAt } = peer;
    if (expiresAt <= now()) throw unauthenticated(CERTIFICATE_EXPIRED);
    return {
      principal: { ...principal, expiresAt },
      whileValid: (end) => onceExpired(expiresAt, now, () => end(unauthenticated(CERTIFICATE_EXPIRED))),
    };
  };
}

/** As certificates were verified: by this machine's clock. */
function now(): Micros {
  return Date.now() * 1_000;
}
