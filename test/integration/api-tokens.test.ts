import { expect, test } from "vitest";
import { TokenCheck } from "../../src/access/token-check.ts";
import { checksumOf, mintToken } from "../../src/access/token-text.ts";
import type { Refusal } from "../../src/domain/errors.ts";
import type { Principal } from "../../src/domain/principal.ts";
import { openDatabase } from "../../src/storage/database.ts";
import { createTokenDirectory, sweepTokens } from "../../src/storage/token-directory.ts";
import { createTestDatabase } from "../support/cluster.ts";
import { until } from "../support/until.ts";

const BY = { actor: "user:test", request: undefined };
const VIEWER = { grant: { role: "viewer" }, lifetimeMs: 3_600_000 } as const;
const LOG = { info() {}, warn() {} };

async function openTokens() {
  const undo = new AsyncDisposableStack();
  const { url } = undo.use(await createTestDatabase());
  const database = openDatabase({ url, onIdleError: () => undefined });
  undo.defer(() => database.close());
  const tokens = createTokenDirectory(database, mintToken);
  const statements: number[] = [];
  let running = 0;
  // A pool that also counts the statements that run concurrently.
  const feed = new Proxy(database.feed, {
    get: (pool, name) => {
      if (name !== "query") return Reflect.get(pool, name);
      return async (config: { text: string; values: unknown[] }) => {
        running += 1;
        statements.push(running);
        try {
          return await pool.query(config);
        } finally {
          running -= 1;
        }
      };
    },
  });
  const openCheck = (options: { pollMs?: number; capacity?: number } = {}): TokenCheck => {
    const check = new TokenCheck({ database: { ...database, feed }, log: LOG, pollMs: 50, ...options });
    check.start();
    undo.defer(() => check.close());
    return check;
  };
  return { database, tokens, statements, openCheck, [Symbol.asyncDispose]: () => undo.disposeAsync() };
}

async function issued(
  result: Promise<{ readonly secret: string | undefined; readonly token: { readonly keyId: string } }>,
) {
  const { secret = "", token } = await result;
  return { secret, keyId: token.keyId };
}

async function principalOf(check: TokenCheck, secret: string): Promise<Principal | string> {
  try {
    return (await check.check(secret)).principal;
  } catch (error) {
    return String(error);
  }
}

test("a principal has at most two live tokens, however many calls issue tokens at once", async () => {
  await using scene = await openTokens();
  const attempts = Array.from({ length: 8 }, () => scene.tokens.issue({ principal: "ada", ...VIEWER }, BY));
  const outcomes = await Promise.allSettled(attempts);
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
});

test.each([
  "read committed",
  "repeatable read",
  "serializable",
])("a principal never has three live tokens across two replicas with revocations, in a database that is %s by default", {
  timeout: 60_000,
}, async (isolation) => {
  await using database = await createTestDatabase();
  await using undo = new AsyncDisposableStack();
  const setter = openDatabase({ url: database.url, onIdleError: () => undefined });
  const name = new URL(database.url).pathname.slice(1);
  await setter.knex.raw(`ALTER DATABASE "${name}" SET default_transaction_isolation = '${isolation}'`);
  await setter.close();
  const replicas = [1, 2].map(() => {
    const replica = openDatabase({ url: database.url, onIdleError: () => undefined });
    undo.defer(() => replica.close());
    return { replica, tokens: createTokenDirectory(replica, mintToken) };
  });
  const LIVE = "SELECT count(*)::int AS live FROM api_tokens WHERE principal = 'ada' AND revoked_at IS NULL";
  let issuedInAll = 0;
  const one = async (worker: number): Promise<void> => {
    const { replica, tokens } = replicas[worker % 2] ?? { replica: undefined, tokens: undefined };
    for (let round = 0; round < 8; round += 1) {
      const result = await tokens?.issue({ principal: "ada", ...VIEWER }, BY).catch((refusal: Refusal) => {
        expect(refusal.reason).toBe("LIMIT_EXCEEDED");
      });
      const { rows } = (await replica?.feed.query<{ live: number }>({ text: LIVE })) ?? { rows: [] };
      expect(rows[0]?.live).toBeLessThanOrEqual(2);
      if (result === undefined) continue;
      issuedInAll += 1;
      await tokens?.revoke(result.token.keyId, BY);
    }
  };
  await Promise.all(Array.from({ length: 16 }, (_, worker) => one(worker)));
  expect(issuedInAll).toBeGreaterThan(2);
});

test("tokens are listed for 90 days after they were revoked or expired, and then removed", async () => {
  await using scene = await openTokens();
  const names = ["lives", "expired", "expired long ago", "revoked", "revoked long ago", "expired, and revoked later"];
  for (const principal of names) await scene.tokens.issue({ principal, ...VIEWER }, BY);
  const age = (principal: string, set: string): Promise<unknown> =>
    scene.database.knex.raw(`UPDATE api_tokens SET ${set} WHERE principal = ?`, [principal]);
  const revoked = (days: number, number: number): string =>
    `revoked_at = clock_timestamp() - interval '${days} days', revoked_by = 'user:x', revocation = ${number}`;
  const expired = (days: number): string => `expires_at = clock_timestamp() - interval '${days} days'`;
  await age("expired", expired(89));
  await age("expired long ago", expired(91));
  await age("revoked", revoked(89, 1));
  await age("revoked long ago", revoked(91, 2));
  await age("expired, and revoked later", `${expired(200)}, ${revoked(1, 3)}`);
  expect(await sweepTokens(scene.database)).toBe(2);
  const { rows } = await scene.tokens.list(undefined, { after: undefined, limit: 50 });
  expect(rows.map(({ principal }) => principal)).toEqual(["lives", "expired", "revoked", "expired, and revoked later"]);
  expect(await sweepTokens(scene.database)).toBe(0);
});

test("concurrent copies of one request issue one token, and return its secret once", async () => {
  await using scene = await openTokens();
  const request = { principal: "admin:ops", id: "r-1", fingerprint: "f" };
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => scene.tokens.issue({ principal: "ada", ...VIEWER }, { ...BY, request })),
  );
  expect(new Set(answers.map(({ token }) => token.keyId)).size).toBe(1);
  expect(answers.filter(({ secret }) => secret !== undefined)).toHaveLength(1);
});

test("uncached tokens are read in batches, one statement at a time, and then cached", async () => {
  await using scene = await openTokens();
  const made = await Promise.all(
    Array.from({ length: 50 }, (_, n) => issued(scene.tokens.issue({ principal: `p${n}`, ...VIEWER }, BY))),
  );
  const check = scene.openCheck({ pollMs: 60_000 });
  const strangers = Array.from({ length: 200 }, () => mintToken().secret);
  const answers = await Promise.all([...made, ...made].map(({ secret }) => principalOf(check, secret)));
  expect(answers.map((one) => (typeof one === "string" ? one : one.name))).toEqual(
    [...made, ...made].map((_, n) => `p${n % 50}`),
  );
  for (const answer of await Promise.all(strangers.map((secret) => principalOf(check, secret)))) {
    expect(answer).toContain("unknown");
  }
  expect(Math.max(...scene.statements)).toBe(1);
  expect(scene.statements.length).toBeLessThan(10);
  const before = scene.statements.length;
  for (const { secret } of made) expect(check.check(secret)).not.toBeInstanceOf(Promise);
  expect(scene.statements).toHaveLength(before);
});

test("rejects a known key id with a wrong secret like an unknown key id", async () => {
  await using scene = await openTokens();
  const { secret, keyId } = await issued(scene.tokens.issue({ principal: "ada", ...VIEWER }, BY));
  const check = scene.openCheck();
  const forged = mintedWith(keyId);
  const said = await principalOf(check, forged);
  expect(said).toContain("unknown");
  await principalOf(check, secret);
  expect(await principalOf(check, forged)).toBe(said);
  await scene.tokens.revoke(keyId, BY);
  await until("the revocation is heard of", async () => String(await principalOf(check, secret)).includes("revoked"));
  // The state of a token is shown only to a caller that has its secret.
  expect(await principalOf(check, forged)).toBe(said);
});

/** A well-formed token with this key id: its checksum is not secret. */
function mintedWith(keyId: string): string {
  const [, , random = ""] = mintToken().secret.split("_");
  const body = `hf_${keyId}_${random}`;
  return `${body}_${checksumOf(body)}`;
}

test("never caches a token as valid after its revocation was received, whenever the token is presented", async () => {
  await using scene = await openTokens();
  const check = scene.openCheck({ pollMs: 5 });
  for (let round = 0; round < 20; round += 1) {
    const { secret, keyId } = await issued(scene.tokens.issue({ principal: `r${round}`, ...VIEWER }, BY));
    const shown = Promise.all(Array.from({ length: 5 }, () => principalOf(check, secret)));
    await Promise.all([scene.tokens.revoke(keyId, BY), shown]);
    await until("it is refused", async () => typeof (await principalOf(check, secret)) === "string");
    for (let again = 0; again < 5; again += 1) expect(await principalOf(check, secret)).toContain("revoked");
  }
});

test.each([
  ["has a lower count of revocations", 1],
  ["has the same count of revocations", 2],
])("reads all tokens of open streams again after another history of the database, which %s", async (_, counted) => {
  await using scene = await openTokens();
  const { database, tokens } = scene;
  const good = await issued(tokens.issue({ principal: "good", ...VIEWER }, BY));
  const lost = await issued(tokens.issue({ principal: "lost", ...VIEWER }, BY));
  for (const principal of ["x", "y"]) {
    const { keyId } = await issued(tokens.issue({ principal, ...VIEWER }, BY));
    await tokens.revoke(keyId, BY);
  }
  const check = scene.openCheck();
  const ended: string[] = [];
  const hold = async ({ secret }: { secret: string }, name: string): Promise<void> => {
    const caller = await check.check(secret);
    caller.whileValid?.((refusal: Refusal) => ended.push(`${name} ${refusal.reason}`));
  };
  await hold(good, "good");
  await hold(lost, "lost");
  // An older state of the same database, in which another revocation then got a number that was assigned
  // before.
  await database.feed.query(
    `UPDATE api_tokens SET revoked_at = NULL, revoked_by = NULL, revocation = NULL WHERE principal IN ('x', 'y')`,
  );
  await database.feed.query(
    `WITH counter AS (UPDATE api_token_counter SET revocation = $2), history AS (UPDATE revision_history SET database_oid = 1)
     UPDATE api_tokens SET revoked_at = clock_timestamp(), revoked_by = 'user:other', revocation = 1 WHERE key_id = $1`,
    [lost.keyId, counted],
  );
  await until("the revoked one has ended", () => ended.length > 0);
  expect(ended).toEqual(["lost UNAUTHENTICATED"]);
  expect(await principalOf(check, good.secret)).toMatchObject({ name: "good" });
});

test("reads a token again that does not fit into the cache, and accepts it", async () => {
  await using scene = await openTokens();
  const made = await Promise.all(
    Array.from({ length: 5 }, (_, n) => issued(scene.tokens.issue({ principal: `p${n}`, ...VIEWER }, BY))),
  );
  const check = scene.openCheck({ capacity: 2 });
  for (let round = 0; round < 2; round += 1) {
    for (const [n, { secret }] of made.entries())
      expect(await principalOf(check, secret)).toMatchObject({ name: `p${n}` });
  }
});
