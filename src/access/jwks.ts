import { readFile, stat } from "node:fs/promises";
import { createLocalJWKSet, createRemoteJWKSet, customFetch, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";

/** How long keys that were fetched are used before they are fetched again. */
const FRESH_MS = 10 * 60_000;
/** How long after a fetch a token with an unknown key causes no other one. */
const COOLDOWN_MS = 10_000;
const TIMEOUT_MS = 3_000;
/** A key is a kilobyte at most. */
const MAX_BYTES = 1_048_576;

/** The keys at a place: a URL, fetched when they are needed and kept for a while; or a file, read again when it changed. */
export function keysAt(place: URL): JWTVerifyGetKey {
  if (place.protocol === "file:") return keysInFile(place);
  return createRemoteJWKSet(place, {
    timeoutDuration: TIMEOUT_MS,
    cooldownDuration: COOLDOWN_MS,
    cacheMaxAge: FRESH_MS,
    [customFetch]: fetchBounded,
  });
}

/** An answer without end would be held until the time is over. */
async function fetchBounded(url: string, options: RequestInit): Promise<Response> {
  const response = await fetch(url, options);
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of response.body ?? []) {
    bytes += piece.byteLength;
    if (bytes > MAX_BYTES) throw new RangeError("the key set is too large");
    pieces.push(piece);
  }
  return new Response(Buffer.concat(pieces), { status: response.status, headers: response.headers });
}

function keysInFile(place: URL): JWTVerifyGetKey {
  let keys: JWTVerifyGetKey | undefined;
  let changedAt: number | undefined;
  return async (header, token) => {
    const { mtimeMs } = await stat(place);
    if (keys === undefined || mtimeMs !== changedAt) {
      keys = createLocalJWKSet(parseKeys(await readFile(place, "utf8")));
      changedAt = mtimeMs;
    }
    return await keys(header, token);
  };
}

/** @throws Error for text that is no set of keys */
export function parseKeys(text: string): JSONWebKeySet {
  const parsed: unknown = JSON.parse(text);
  if (!isKeySet(parsed)) throw new TypeError("this is no JSON Web Key Set");
  return parsed;
}

function isKeySet(value: unknown): value is JSONWebKeySet {
  return (
    typeof value === "object" &&
    value !== null &&
    "keys" in value &&
    Array.isArray(value.keys) &&
    value.keys.every((key: unknown) => typeof key === "object" && key !== null && "kty" in key)
  );
}
