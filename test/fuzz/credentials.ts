import { createHmac } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { checksumOf, mintToken } from "../../src/access/token-text.ts";
import { ROLES, type Role } from "../../src/domain/principal.ts";
import type { Random } from "../chaos/random.ts";
import { forAgents, forClaw, openMint } from "../support/access.ts";

/** The credential of a call. */
export interface Shown {
  /** Undefined: nothing. */
  readonly authorization: string | undefined;
  /** Its principal; undefined for an invalid one. */
  readonly role: Role | undefined;
}

/** Credentials of all kinds of callers, and invalid ones. */
export interface FuzzCredentials {
  /** Settings of a service that requires them. */
  readonly env: Readonly<Record<string, string>>;
  readonly admin: string;
  next(random: Random): Shown;
  /** Secrets that may only be in requests: the end of each that was made beforehand. */
  readonly secrets: readonly string[];
}

const ISSUER = "https://id.example.org";
const AUDIENCE = "agents";
const HOUR_S = 3_600;

/** The end of a credential, which identifies it best; undefined for one without content. */
export function tailOf(authorization: string): string | undefined {
  const token = authorization.replace(/^bearer +/i, "");
  const tail = token.slice(-24);
  // A repeated letter is in hostile names, too, which responses may quote.
  return token.length >= 40 && new Set(tail).size > 6 ? tail : undefined;
}

/** @param folder where the file of keys is written */
export async function createFuzzCredentials(databaseUrl: string, folder: string): Promise<FuzzCredentials> {
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  const stranger = await generateKeyPair("ES256", { extractable: true });
  const jwks = join(folder, "keys.json");
  await writeFile(jwks, JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "one", alg: "ES256" }] }));

  const now = Math.floor(Date.now() / 1_000);
  const claims = (role: unknown, more: JWTPayload = {}): JWTPayload => ({
    sub: `jwt-${String(role)}`,
    role,
    iss: ISSUER,
    aud: AUDIENCE,
    iat: now,
    exp: now + HOUR_S,
    ...(role === "agent" ? { claw_identifier: "fuzz-claw" } : {}),
    ...more,
  });
  const sign = (payload: JWTPayload, header: object = {}, key = privateKey): Promise<string> =>
    new SignJWT(payload).setProtectedHeader({ alg: "ES256", kid: "one", ...header }).sign(key);

  const good: Shown[] = [];
  let admin = "";
  await using mint = openMint(databaseUrl);
  for (const role of ROLES) {
    const grants = role === "agent" ? [forClaw("fuzz-claw"), forAgents("fuzz-1", "fuzz-2")] : [{ role }];
    for (const grant of grants) {
      const { secret } = await mint.issue(grant);
      good.push({ authorization: `Bearer ${secret}`, role });
      if (role === "admin") admin = secret;
    }
    good.push({ authorization: `bearer   ${await sign(claims(role))}`, role });
  }
  const revoked = await mint.issue({ role: "admin" });
  await mint.tokens.revoke(revoked.token.keyId, { actor: "user:fuzz", request: undefined });

  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const hmac = (key: string): string => {
    const content = `${part({ alg: "HS256", kid: "one" })}.${part(claims("admin"))}`;
    return `${content}.${createHmac("sha256", key).update(content).digest("base64url")}`;
  };
  const jwk = await exportJWK(stranger.publicKey);
  const forged = await sign(claims("admin"));
  const [head = "", body = "", signature = ""] = forged.split(".");
  const bad = [
    revoked.secret,
    mintToken().secret,
    // alg none, and its spellings
    ...["none", "None", "NONE", "nOnE"].flatMap((alg) => [
      `${part({ alg })}.${part(claims("admin"))}.`,
      `${part({ alg, kid: "one" })}.${part(claims("admin"))}.${signature}`,
    ]),
    // the public key as a shared secret
    hmac(await exportSPKI(publicKey)),
    hmac(JSON.stringify(await exportJWK(publicKey))),
    hmac(""),
    // keys of the sender's own
    await sign(claims("admin"), {}, stranger.privateKey),
    await sign(claims("admin"), { jwk }, stranger.privateKey),
    await sign(claims("admin"), { jku: "http://127.0.0.1:1/keys", x5u: "file:///etc/passwd" }, stranger.privateKey),
    await sign(claims("admin"), { kid: "../../../../dev/null" }, stranger.privateKey),
    await sign(claims("admin"), { kid: "k".repeat(8_000) }, stranger.privateKey),
    // valid tokens except for their claims
    await sign(claims("admin", { iss: "https://evil.example" })),
    await sign(claims("admin", { aud: "others" })),
    await sign(claims("admin", { exp: now - 1 })),
    await sign(claims("admin", { exp: -1 })),
    await sign(claims("admin", { nbf: now + HOUR_S })),
    await sign(claims("admin", { sub: "" })),
    await sign(claims("admin", { sub: "a\u0000b" })),
    await sign(claims("admin", { sub: "s".repeat(4_000) })),
    await sign(claims("root")),
    await sign(claims({ admin: true })),
    await sign(claims("agent", { claw_identifier: "" })),
    await sign(claims("agent", { claw_identifier: 7 })),
    await sign(claims("agent", { agent_ids: ["fuzz-1"] })),
    await sign({ iss: ISSUER, aud: AUDIENCE, sub: "no-end", role: "admin" }),
    // broken forms
    `${head}.${body}`,
    `${head}.${body}.${signature}.`,
    `${head}.${body}.${signature}.${signature}.${signature}`,
    `${head}.${part(claims("service"))}.${signature}`,
    `${head}..${signature}`,
    `..${signature}`,
    `${part({ alg: "ES256", kid: "one", crit: ["exp"] })}.${body}.${signature}`,
    `${part({ alg: "ES256", kid: "one", b64: false, crit: ["b64"] })}.${body}.${signature}`,
    `${part({ alg: "ES256", kid: "one", zip: "DEF" })}.${body}.${signature}`,
    `${part({ alg: "dir", enc: "A256GCM" })}..AAAAAAAAAAAAAAAA.${signature}.AAAAAAAAAAAAAAAAAAAAAA`,
    `${part({ alg: ["ES256"] })}.${body}.${signature}`,
    `${part(null)}.${body}.${signature}`,
    `${part("x")}.${part("x")}.${signature}`,
    `${Buffer.from(`{"alg":${"[".repeat(3_000)}`).toString("base64url")}.${body}.${signature}`,
  ];

  const hostile = (random: Random): string => {
    const kind = random.next();
    if (kind < 0.35) return `Bearer ${random.pick(bad)}`;
    const token = random.pick(good).authorization?.replace(/^bearer +/i, "") ?? "";
    const at = Math.floor(random.between(0, token.length));
    const changed = `${token.slice(0, at)}${random.pick(["A", "~", "_", ".", "z0", ""])}${token.slice(at + 1)}`;
    if (kind < 0.5) return changed === token ? "Bearer" : `Bearer ${changed}`;
    // Anyone can compute a checksum.
    const body = mintToken().secret.slice(0, -7);
    if (kind < 0.6) return `Bearer ${body}_${checksumOf(body)}`;
    if (kind < 0.7)
      return `Bearer ${part({ alg: "ES256", kid: `kid-${random.next()}` })}.${part(claims("admin"))}.${signature}`;
    if (kind < 0.8)
      return `Bearer ${random.pick(["hf_", "eyJ", "", "é"])}${"x".repeat(Math.floor(random.between(1, 12_000)))}`;
    return random.pick([
      "",
      "Bearer",
      "Bearer ",
      "Basic YWRtaW46YWRtaW4=",
      `Digest ${token}`,
      `Bearer ${token} ${token}`,
      `Bearer ${token}, Bearer ${token}`,
      `Bearer,${token}`,
      `Bearer\t${token}`,
      token,
      `Bearer "${token}"`,
      `Bearer ${encodeURIComponent(`${token}\u0000`)}`,
      `Bearer ${token.toUpperCase()}.`,
    ]);
  };

  return {
    env: {
      HARBORFORGE_AUTH: "required",
      HARBORFORGE_JWT_JWKS: jwks,
      HARBORFORGE_JWT_ISSUER: ISSUER,
      HARBORFORGE_JWT_AUDIENCE: AUDIENCE,
      HARBORFORGE_JWT_ALGORITHMS: "ES256,RS256",
    },
    admin,
    secrets: [...good.map(({ authorization = "" }) => authorization), ...bad].flatMap((text) => tailOf(text) ?? []),
    next: (random) => {
      const kind = random.next();
      if (kind < 0.1) return { authorization: undefined, role: undefined };
      if (kind < 0.5) return { authorization: hostile(random), role: undefined };
      return random.pick(good);
    },
  };
}
