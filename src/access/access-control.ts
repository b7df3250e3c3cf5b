import { readFile } from "node:fs/promises";
import type { JwtTrust } from "../domain/jwt-claims.ts";
import type { Authenticate } from "../domain/principal.ts";
import { Metrics } from "../telemetry/metrics/metrics.ts";
import { AccessError } from "./access-error.ts";
import { allowAnonymous, createAuthenticator } from "./authenticator.ts";
import { readCertificatePrincipals } from "./certificate-principals.ts";
import type { JwtCheck } from "./jwt-check.ts";
import { TokenCheck, type TokenCheckOptions } from "./token-check.ts";

/** How the service authenticates callers. */
export type AccessOptions =
  | {
      readonly kind: "open";
      /** Host names that callers may use besides those of this machine. Default: none. */
      readonly allowedHosts?: readonly string[];
    }
  | {
      readonly kind: "credentials";
      readonly jwt: JwtTrust | undefined;
      /** The path of the file that maps certificates to principals. */
      readonly certificatePrincipals: string | undefined;
      /** How long a replica without its database trusts cached tokens, in milliseconds. Default 60 s; tests set it. */
      readonly trustMs?: number;
    };

/** Authenticates callers, and keeps what it needs for that up to date. */
export interface AccessControl {
  readonly authenticate: Authenticate;
  start(): void;
  close(): Promise<void>;
}

/**
 * @param metrics default: metrics that nothing reads
 * @throws AccessError if a configured file is not usable
 */
export async function createAccessControl(
  options: AccessOptions,
  { database, log, metrics = new Metrics() }: Pick<TokenCheckOptions, "database" | "log"> & { metrics?: Metrics },
): Promise<AccessControl> {
  if (options.kind === "open") {
    return { authenticate: allowAnonymous, start: () => undefined, close: () => Promise.resolve() };
  }
  const { jwt, certificatePrincipals, trustMs } = options;
  const certificates =
    certificatePrincipals === undefined ? new Map() : await readCertificatePrincipals(certificatePrincipals);
  const jwtCheck = jwt === undefined ? undefined : await createJwtCheck(jwt, log);
  const tokens = new TokenCheck({ database, log, ...(trustMs === undefined ? {} : { trustMs }) });
  const authenticate = createAuthenticator({
    tokens,
    jwt: jwtCheck,
    certificates,
    onFailure: (kind) => metrics.counter("harborforge_authentication_failures_total", { kind }).add(),
  });
  return { authenticate, start: () => tokens.start(), close: () => tokens.close() };
}

/** Loads `jose` only if JSON Web Tokens are configured: most deployments use none. */
async function createJwtCheck(options: JwtTrust, log: TokenCheckOptions["log"]): Promise<JwtCheck> {
  const [{ JwtCheck }, { keysAt, parseKeys }] = await Promise.all([import("./jwt-check.ts"), import("./jwks.ts")]);
  if (options.jwks.protocol === "file:") await checkKeyFile(options.jwks, parseKeys);
  return new JwtCheck({ ...options, keys: keysAt(options.jwks), log });
}

/** Checks the file at the start, because a later fault appears only in the log. */
async function checkKeyFile(file: URL, parseKeys: (text: string) => object): Promise<void> {
  try {
    parseKeys(await readFile(file, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AccessError(`HARBORFORGE_JWT_JWKS: the file is not usable: ${why}.`, { cause: error });
  }
}
