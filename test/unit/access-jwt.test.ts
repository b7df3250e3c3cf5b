import { createHmac, generateKeyPairSync } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { errors, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { createAuthenticator } from "../../src/access/authenticator.ts";
import { keysAt } from "../../src/access/jwks.ts";
import { JwtCheck, type JwtCheckOptions } from "../../src/access/jwt-check.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { OWN_ROLE_NAMES } from "../../src/domain/jwt-claims.ts";
import type { Caller } from "../../src/domain/principal.ts";
import { temporaryFolder } from "../support/owned-process.ts";

const ISSUER = "https://id.example.org";
const AUDIENCE = "agents";
const CLAIMS = { principal: "sub", role: "role", agents: "agent_ids", claw: "claw_identifier" };

const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
const jwk = { ...(await exportJWK(publicKey)), kid: "one", alg: "ES256" };
const seconds = (): number => Math.floor(Date.now() / 1_000);

async function inFolder(): Promise<string> {
  const folder = await temporaryFolder("jwks");
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}

async function setUp(options: Partial<JwtCheckOptions> = {}) {
  const file = join(await inFolder(), "keys.json");
  await writeFile(file, JSON.stringify({ keys: [jwk] }));
  const warned: string[] = [];
  const check = new JwtCheck({
    keys: keysAt(pathToFileURL(file)),
    issuer: ISSUER,
    audience: AUDIENCE,
    algorithms: ["ES256", "RS256"],
    clockToleranceMs: 5_000,
    claims: CLAIMS,
    roleNames: OWN_ROLE_NAMES,
    log: { warn: (_, message) => warned.push(message) },
    ...options,
  });
  return { file, warned, check: async (token: string): Promise<Caller> => await check.check(token) };
}

const GOOD: JWTPayload = { sub: "ada", role: "viewer", iss: ISSUER, aud: AUDIENCE };

function sign(payload: JWTPayload, key = privateKey, header: object = {}): Promise<string> {
  const claims = { exp: seconds() + 60, iat: seconds(), ...payload };
  return new SignJWT(claims).setProtectedHeader({ alg: "ES256", kid: "one", ...header }).sign(key);
}

async function refused(call: Promise<unknown>): Promise<Refusal> {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof Refusal)) throw new Error("not refused", { cause: thrown });
  expect(thrown.reason).toBe("UNAUTHENTICATED");
  return thrown;
}

describe("a JSON Web Token", () => {
  test("gives the principal and the time of expiry", async () => {
    const { check } = await setUp();
    const exp = seconds() + 30;
    const { principal } = await check(await sign({ ...GOOD, exp, jti: "t-1" }));
    expect(principal).toEqual({ name: "ada", role: "viewer", credential: "jwt:t-1", expiresAt: exp * 1_000_000 });
  });

  test("of an agent names its agents, or its claw", async () => {
    const { check } = await setUp();
    const agent = { ...GOOD, role: "agent" };
    const named = await check(await sign({ ...agent, agent_ids: ["a", "b"] }));
    expect(named.principal.scope).toEqual({ kind: "agents", agentIds: new Set(["a", "b"]) });
    const claw = await check(await sign({ ...agent, claw_identifier: "c" }));
    expect(claw.principal.scope).toEqual({ kind: "claw", clawIdentifier: "c" });
    for (const scope of [
      {},
      { agent_ids: [] },
      { agent_ids: "a" },
      { agent_ids: ["a"], claw_identifier: "c" },
      { agent_ids: [7] },
    ]) {
      await refused(check(await sign({ ...agent, ...scope })));
    }
  });

  test("is read with the issuer's own names for claims and roles", async () => {
    const { check } = await setUp({
      claims: { ...CLAIMS, role: "realm_access.roles", principal: "https://example.org/name" },
      roleNames: new Map([
        ["hf-boss", "admin"],
        ["hf-eyes", "viewer"],
      ]),
    });
    const roles = { realm_access: { roles: ["other", "hf-eyes", "hf-boss"] }, "https://example.org/name": "ada@x" };
    expect((await check(await sign({ ...GOOD, ...roles }))).principal).toMatchObject({ name: "ada@x", role: "admin" });
    await refused(check(await sign({ ...GOOD, ...roles, realm_access: { roles: ["admin"] } })));
  });

  test.each<[string, JWTPayload]>([
    ["another issuer", { iss: "https://elsewhere.example.org" }],
    ["another audience", { aud: "others" }],
    ["no audience", { aud: undefined as never }],
    ["no expiry", { exp: undefined as never }],
    ["an expiry in the past", { exp: seconds() - 1 }],
    ["a start in the far future", { nbf: seconds() + 600 }],
    ["no role", { role: undefined }],
    ["an unknown role", { role: "root" }],
    ["an empty name", { sub: "" }],
    ["a name with control characters", { sub: "a\u0000b" }],
  ])("with %s is rejected", async (_, claims) => {
    const { check } = await setUp();
    await refused(check(await sign({ ...GOOD, ...claims })));
  });

  test("is accepted from a clock that is slightly ahead", async () => {
    const { check } = await setUp();
    await check(await sign({ ...GOOD, nbf: seconds() + 3 }));
  });

  test("without a signature, or signed with a public value, is rejected", async () => {
    const { check } = await setUp();
    const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const body = encode({ ...GOOD, exp: seconds() + 60 });
    const unsigned = `${encode({ alg: "none" })}.${body}.`;
    await refused(check(unsigned));
    // The public key, used as a shared secret.
    const head = encode({ alg: "HS256", kid: "one" });
    for (const secret of [JSON.stringify(jwk), String(jwk.x), ""]) {
      const signature = createHmac("sha256", secret).update(`${head}.${body}`).digest("base64url");
      await refused(check(`${head}.${body}.${signature}`));
    }
    const [header, payload, signature] = (await sign(GOOD)).split(".");
    const forged = encode({ ...GOOD, role: "admin", exp: seconds() + 60 });
    await refused(check(`${header}.${forged}.${signature}`));
    await refused(check(`${header}.${payload}.`));
    const stranger = await generateKeyPair("ES256");
    await refused(check(await sign(GOOD, stranger.privateKey)));
    await refused(check(await sign(GOOD, stranger.privateKey, { jwk: await exportJWK(stranger.publicKey) })));
    for (const text of ["x", "a.b.c", "..", "ey.ey.ey"]) await refused(check(text));
  });

  test("is rejected with a signature algorithm that is not allowed, whatever the keys", async () => {
    const { check } = await setUp({ algorithms: ["RS256"] });
    const { message } = await refused(check(await sign(GOOD)));
    expect(message).toContain("not allowed");
  });

  test.each<unknown>([
    7,
    0,
    null,
    true,
    {},
    ["a"],
    { toString: "x" },
  ])("is rejected when its jti is not a string: %j", async (jti) => {
    const { check, warned } = await setUp();
    const { message } = await refused(check(await sign({ ...GOOD, jti: jti as never })));
    expect(message).toContain("jti must be a string");
    expect(warned).toEqual([]);
  });

  test.each<unknown>([
    7,
    -1,
    1e308,
    null,
    true,
    {},
    [],
    ["a"],
    [[]],
    "",
    "\u0000",
    "\ud800",
    "\u2028",
    { "": {} },
  ])("is accepted or rejected with a reason, whatever its claims are: %j", async (value) => {
    const { check, warned } = await setUp();
    for (const claim of ["sub", "role", "agent_ids", "claw_identifier", "iss", "aud", "exp", "iat", "nbf", "jti"]) {
      for (const role of ["viewer", "agent"]) {
        // Accepted, or rejected with a reason; anything else fails the test.
        const token = await sign({ ...GOOD, role, [claim]: value });
        await check(token).catch((thrown: unknown) => expect(thrown).toMatchObject({ reason: "UNAUTHENTICATED" }));
      }
    }
    expect(warned).toEqual([]);
  });

  test.each([
    { kid: 7 },
    { kid: null },
    { kid: {} },
    { alg: 7 },
    { alg: null },
    { alg: "constructor" },
    { crit: "exp" },
    { crit: ["exp"] },
    { crit: [] },
    { b64: false, crit: ["b64"] },
    { jwk: 7 },
    { typ: {} },
    { p2c: 1e9 },
  ])("with an unusual header is rejected with a reason: %j", async (header) => {
    const { check } = await setUp();
    const [, payload, signature] = (await sign(GOOD)).split(".");
    const head = Buffer.from(JSON.stringify({ alg: "ES256", kid: "one", ...header })).toString("base64url");
    await refused(check(`${head}.${payload}.${signature}`));
  });

  test.each(
    Object.values(errors).map((Raised) => Object.assign(new Raised("secret text", {}), { message: "secret text" })),
  )("is rejected with a reason when jose throws $name", async (raised) => {
    const keys = () => Promise.reject(raised);
    const { check } = await setUp({ keys });
    const { message } = await refused(check(await sign(GOOD)));
    expect(message).not.toContain("secret text");
  });

  test.each([
    new TypeError("secret text"),
    new Error("secret text"),
    new DOMException("secret text", "TimeoutError"),
    Object.assign(new Error("secret text"), { code: "ENOENT" }),
    "secret text",
    undefined,
  ])("is rejected as retryable when its keys fail with %s", async (raised) => {
    const { check, warned } = await setUp({ keys: () => Promise.reject(raised) });
    const { message, retryAfterMs } = await refused(check(await sign(GOOD)));
    expect(message).not.toContain("secret text");
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(warned).toHaveLength(1);
  });

  test("ends its streams when it expires", async () => {
    const { check } = await setUp();
    const exp = seconds() + 60;
    const caller = await check(await sign({ ...GOOD, exp }));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"], now: Date.now() });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const ended = vi.fn<(end: Refusal) => void>();
    caller.whileValid?.(ended);
    await vi.advanceTimersByTimeAsync(exp * 1_000 - Date.now() - 1);
    expect(ended).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(ended).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ reason: "UNAUTHENTICATED" }));
  });

  test("is verified with the keys that the file has at that time", async () => {
    const { check, file } = await setUp();
    const next = await generateKeyPair("ES256", { extractable: true });
    const token = await sign(GOOD, next.privateKey, { kid: "two" });
    await refused(check(token));
    await writeFile(file, JSON.stringify({ keys: [jwk, { ...(await exportJWK(next.publicKey)), kid: "two" }] }));
    await check(token);
  });
});

test("fetches keys from a URL once for many tokens, and rejects tokens as retryable without keys", async () => {
  let fetched = 0;
  let broken = true;
  const server = createServer((_, response) => {
    fetched += 1;
    if (broken) response.writeHead(500).end();
    else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ keys: [jwk] }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  const { port } = server.address() as AddressInfo;
  const { check, warned } = await setUp({ keys: keysAt(new URL(`http://127.0.0.1:${port}/keys`)) });
  expect((await refused(check(await sign(GOOD)))).retryAfterMs).toBeGreaterThan(0);
  expect(warned).toHaveLength(1);
  broken = false;
  fetched = 0;
  for (let n = 0; n < 20; n += 1) await check(await sign({ ...GOOD, jti: String(n) }));
  expect(fetched).toBe(1);
});

test("neither follows redirects of a keys URL, nor reads an endless response", async () => {
  let elsewhere = 0;
  let sent = 0;
  const server = createServer((req, res) => {
    if (req.url === "/elsewhere") {
      elsewhere += 1;
      res.end(JSON.stringify({ keys: [jwk] }));
    } else if (req.url === "/moved") {
      res.writeHead(302, { location: "/elsewhere" }).end();
    } else {
      const more = (): void => {
        for (let room = true; room && !res.destroyed; ) {
          sent += 65_536;
          room = res.write(Buffer.alloc(65_536, 0x20));
        }
      };
      res.on("drain", more);
      more();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  for (const path of ["/moved", "/endless"]) {
    const { check } = await setUp({ keys: keysAt(new URL(`http://127.0.0.1:${port}${path}`)) });
    const refusal = await refused(check(await sign(GOOD)));
    expect(refusal.message).toContain("are not available at the moment");
  }
  expect(elsewhere).toBe(0);
  // The bytes that were in buffers, and not the bytes of three seconds.
  expect(sent).toBeLessThan(64 * 1_048_576);
});

describe("the authorization header", () => {
  const tokens = {
    check: (text: string): Caller => ({
      principal: { role: "viewer", name: text, credential: "", expiresAt: undefined },
    }),
  };
  const certificate = {
    role: "service",
    name: "billing",
    credential: "uri:spiffe://x/billing",
    expiresAt: undefined,
  } as const;
  const certificates = new Map([["uri:spiffe://x/billing", certificate]]);
  const authenticate = createAuthenticator({ tokens, jwt: undefined, certificates });
  const expiresAt = (Date.now() + 3_600_000) * 1_000;
  const peer = { uris: ["spiffe://x/billing"], dnsNames: [], expiresAt };

  test.each(["Bearer hf_x", "bearer hf_x", "BEARER  hf_x"])("%s contains a token", (authorization) => {
    expect(authenticate({ authorization, peer: undefined })).toMatchObject({ principal: { name: "hf_x" } });
  });

  test.each([
    "",
    "hf_x",
    "Basic aGZfeDo=",
    "Bearer",
    "Bearer ",
    "Bearer hf_x, Bearer hf_y",
    "Bearer hf_x hf_y",
    "Bearer e.e.e",
  ])("%j contains none, also on a connection with a known certificate", (authorization) => {
    expect(() => authenticate({ authorization, peer })).toThrow(Refusal);
  });

  test("is not required with a known certificate", () => {
    expect(authenticate({ authorization: null, peer })).toMatchObject({ principal: { ...certificate, expiresAt } });
    for (const other of [undefined, { ...peer, uris: ["spiffe://x/other"], dnsNames: ["spiffe://x/billing"] }]) {
      expect(() => authenticate({ authorization: null, peer: other })).toThrow("No credential");
    }
  });
});

test("an RSA key of the issuer verifies its signatures", async () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  const file = join(await inFolder(), "rsa.json");
  await writeFile(file, JSON.stringify({ keys: [{ ...rsa.publicKey.export({ format: "jwk" }), kid: "rsa" }] }));
  const { check } = await setUp({ keys: keysAt(pathToFileURL(file)) });
  const signed = new SignJWT({ ...GOOD, exp: seconds() + 60 }).setProtectedHeader({ alg: "RS256", kid: "rsa" });
  expect((await check(await signed.sign(rsa.privateKey))).principal.name).toBe("ada");
});
