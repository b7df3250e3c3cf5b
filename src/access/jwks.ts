import { readFile, stat } from "node:fs/promises";
import { createLocalJWKSet, createRemoteJWKSet, customFetch, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";

/** How long fetched keys are used before they are fetched again, in milliseconds. */
const FRESH_MS = 10 * 60_000;
/** After a fetch, a token with an unknown key causes no other fetch for this long, in milliseconds. */
const COOLDOWN_MS = 10_000;
const TIMEOUT_MS = 3_000;
/** A key takes at most a kilobyte, so this holds about a thousand keys. */
const MAX_BYTES = 1_048_576;

/** The keys of a URL, which are fetched on demand and cached, or of a file, which is read again when it changes. */
export function keysAt(place: URL): JWTVerifyGetKey {
  if (place.protocol === "file:") return keysInFile(place);
  return createRemoteJWKSet(place, {
    timeoutDuration: TIMEOUT_MS,
    cooldownDuration: COOLDOWN_MS,
    cacheMaxAge: FRESH_MS,
    [customFetch]: fetchBounded,
  });
}

/** Limits the size of a response: an endless one would fill the memory until the timeout. */
async function fetchBounded(url: string, options: RequestInit): Promise<Response> {
  const response = await fetch(url, options);
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of response.body ?? []) {
    bytes += piece.byteLength;
    if (bytes > MAX_BYTES) throw new RangeError(`the key set is larger than ${MAX_BYTES} bytes`);
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

/** @throws Error if the text is not a JSON Web Key Set */
export function parseKeys(text: string): JSONWebKeySet {
  const parsed: unknown = JSON.parse(text);
  if (!isKeySet(parsed)) throw new TypeError("not a JSON Web Key Set");
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
