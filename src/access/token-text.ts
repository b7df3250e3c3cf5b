import { createHash, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import type { MintedToken } from "../domain/api-token.ts";

/**
 * The prefix of each token. Secret scanners find it, and it tells an API token from a JWT.
 *
 * A token is `hf_<key id>_<secret>_<checksum>`, of letters and digits. The key id has 12 characters, and finds the
 * token. The secret has 43 characters (256 bits). The checksum has 6 characters, and detects typing errors without the
 * database.
 */
export const TOKEN_PREFIX = "hf_";

const KEY_ID_LENGTH = 12;
const SECRET_LENGTH = 43;
const CHECKSUM_LENGTH = 6;
const TOKEN = new RegExp(
  `^${TOKEN_PREFIX}([0-9A-Za-z]{${KEY_ID_LENGTH}})_([0-9A-Za-z]{${SECRET_LENGTH}})_([0-9A-Za-z]{${CHECKSUM_LENGTH}})$`,
);

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/**
 * The largest multiple of 62 that fits into a byte. Without this limit some letters would be more likely than others.
 */
const FAIR_BYTES = 248;

/** Makes a new random token. */
export function mintToken(): MintedToken {
  const keyId = randomText(KEY_ID_LENGTH);
  const body = `${TOKEN_PREFIX}${keyId}_${randomText(SECRET_LENGTH)}`;
  const secret = `${body}_${checksumOf(body)}`;
  return { secret, keyId, secretHash: hashOf(secret) };
}

/** The key id of a token; undefined for text that is not a well-formed token. */
export function keyIdOf(token: string): string | undefined {
  const [, keyId, , check] = TOKEN.exec(token) ?? [];
  return check === checksumOf(token.slice(0, -CHECKSUM_LENGTH - 1)) ? keyId : undefined;
}

/** SHA-256 of a token: the service stores the hash, not the token. */
export function hashOf(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}

/** Detects damage, not forgery: anyone can compute it. */
export function checksumOf(body: string): string {
  let rest = crc32(body);
  let text = "";
  for (let place = 0; place < CHECKSUM_LENGTH; place += 1) {
    text = `${ALPHABET[rest % ALPHABET.length]}${text}`;
    rest = Math.floor(rest / ALPHABET.length);
  }
  return text;
}

function randomText(length: number): string {
  let text = "";
  while (text.length < length) {
    for (const byte of randomBytes(2 * length)) {
      if (byte < FAIR_BYTES && text.length < length) text += ALPHABET[byte % ALPHABET.length];
    }
  }
  return text;
}
