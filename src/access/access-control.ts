import { readFile } from "node:fs/promises";
import type { JwtTrust } from "../domain/jwt-claims.ts";
import type { Authenticate } from "../domain/principal.ts";
import { AccessError } from "./access-error.ts";
import { allowAnonymous, createAuthenticator } from "./authenticator.ts";
import { readCertificatePrincipals } from "./certificate-principals.ts";
import type { JwtCheck } from "./jwt-check.ts";
import { TokenCheck, type TokenCheckOptions } from "./token-check.ts";

/** Who is let in. */
export type AccessOptions =
  | {
      readonly kind: "open";
      /** Names by which the listeners may be called, besides those of this machine itself. Default: none. */
      readonly allowedHosts?: readonly string[];
    }
  | {
      readonly kind: "credentials";
      readonly jwt: JwtTrust | undefined;
      /** The path of the file that says whom certificates stand for. */
      readonly certificatePrincipals: string | undefined;
      /** How long a replica without its database lets callers in; other than the default in tests that wait for its end. */
      readonly trustMs?: number;
    };

/** What a replica knows of who may come in. */
export interface AccessControl {
  readonly authenticate: Authenticate;
  start(): void;
  close(): Promise<void>;
}

/** @throws AccessError where a file that was named cannot be used */
export async function createAccessControl(
  options: AccessOptions,
  { database, log }: Pick<TokenCheckOptions, "database" | "log">,
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
  });
  return { authenticate, start: () => tokens.start(), close: () => tokens.close() };
}

/** What checks them is loaded where they are taken: most who start a service take none. */
async function createJwtCheck(options: JwtTrust, log: TokenCheckOptions["log"]): Promise<JwtCheck> {
  const [{ JwtCheck }, { keysAt, parseKeys }] = await Promise.all([import("./jwt-check.ts"), import("./jwks.ts")]);
  if (options.jwks.protocol === "file:") await checkKeyFile(options.jwks, parseKeys);
  return new JwtCheck({ ...options, keys: keysAt(options.jwks), log });
}

/** At the start, since later nobody but the log would be told. */
async function checkKeyFile(file: URL, parseKeys: (text: string) => object): Promise<void> {
  try {
    parseKeys(await readFile(file, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AccessError(`The file of HARBORFORGE_JWT_JWKS cannot be used: ${why}.`, { cause: error });
  }
}
