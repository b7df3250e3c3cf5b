import { describe, expect, test } from "vitest";
import { CREDENTIALS } from "../support/access.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, type RawResponse } from "../support/rpc-raw.ts";
import { startService, useService } from "../support/service.ts";

const FLEET = "/harborforge.agents.v1.AgentService/GetFleet";
const CREATE = "/harborforge.agents.v1.UserService/CreateUser";
const JSON_TYPE = { "content-type": "application/json" };

/** Credentials are not required, and one additional host name is allowed. */
const service = useService({ access: { kind: "open", allowedHosts: ["agents.test"] } });

type Ask = (headers: Readonly<Record<string, string>>, authority: string) => Promise<RawResponse>;

async function grpc(address: string, headers: Readonly<Record<string, string>>): Promise<RawResponse> {
  const session = await http2Connect(address);
  try {
    const { response, stream } = http2Call(session, FLEET, { "content-type": "application/grpc", ...headers });
    stream.end(envelope(""));
    return await response;
  } finally {
    session.destroy();
  }
}

const WAYS: readonly (readonly [string, Ask])[] = [
  [
    "gRPC at the gRPC listener",
    (more, authority) => grpc(service().addresses.grpc, { ...more, ":authority": authority }),
  ],
  [
    "gRPC at the Connect listener",
    (more, authority) => grpc(service().addresses.http, { ...more, ":authority": authority }),
  ],
  [
    "JSON over HTTP/1.1",
    (more, authority) =>
      http1(service().addresses.http, FLEET, { headers: { ...JSON_TYPE, ...more, host: authority }, body: "{}" }),
  ],
];

/** Undefined for a successful response. */
function refusal(response: RawResponse) {
  const ok =
    response.trailers.get("grpc-status") === "0" || response.headers.get("content-type") === "application/json";
  if (ok && response.status === 200 && response.headers.get("grpc-status") === null) return undefined;
  return failureOf(errorIn(response));
}

describe.each(WAYS)("without credentials, %s", (_way, ask) => {
  test.each([
    "localhost",
    "localhost:50051",
    "LOCALHOST.:1",
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.1.2.3:1",
    "[::1]",
    "[::1]:8080",
    "[::ffff:127.0.0.1]:1",
    "agents.test",
    "AGENTS.test:443",
  ])("accepts the host name %s", async (authority) => {
    expect(refusal(await ask({}, authority))).toBeUndefined();
  });

  test.each([
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example:8080",
    "0.0.0.0:8080",
    "192.168.1.7",
    "sub.agents.test",
    "[fe80::1]:8080",
    "2130706433",
  ])("rejects the host name %s, which a hostile page could resolve to this address", async (authority) => {
    const refused = refusal(await ask({}, authority));
    expect(refused).toMatchObject({ reason: "PERMISSION_DENIED", metadata: { header: "host" } });
    expect(refused?.message).toContain("HARBORFORGE_ALLOWED_HOSTS");
    expect(refused?.message).not.toContain(authority);
  });

  test.each([
    "https://evil.example",
    "http://evil.example:8080",
    "null",
    "file://",
    "chrome-extension://abc",
  ])("rejects a page of %s that uses the right address", async (origin) => {
    const refused = refusal(await ask({ origin }, "127.0.0.1"));
    expect(refused).toMatchObject({ reason: "PERMISSION_DENIED", metadata: { header: "origin" } });
  });

  test.each([
    "http://localhost:5173",
    "http://127.0.0.1:8080",
    "http://[::1]:1",
    "https://agents.test",
  ])("accepts a page of %s", async (origin) => {
    expect(refusal(await ask({ origin }, "127.0.0.1"))).toBeUndefined();
  });
});

test("pages are rejected with 403 and a sentence, too", async () => {
  const { http } = service().addresses;
  for (const path of ["/metrics", "/readyz", "/healthz", "/"]) {
    const refused = await http1(http, path, { method: "GET", headers: { host: "evil.example" } });
    expect(refused.status).toBe(403);
    expect(refused.body.toString()).toContain("HARBORFORGE_ALLOWED_HOSTS");
  }
  expect((await http1(http, "/healthz", { method: "GET", headers: { host: "localhost" } })).status).toBe(200);
});

/** The requests that browsers send cross-origin without a preflight: three content types, or none, and GET. */
test("a cross-origin request without a preflight changes nothing", async () => {
  const { http } = service().addresses;
  const body = '{"username":"mallory","agentId":"mallory","clawIdentifier":"c"}';
  const tries: readonly Record<string, string>[] = [
    {},
    { "content-type": "text/plain" },
    { "content-type": "text/plain;application/json" },
    { "content-type": "text/plain; charset=application/json" },
    { "content-type": "application/x-www-form-urlencoded" },
    { "content-type": "multipart/form-data; boundary=application/json" },
  ];
  for (const headers of tries) {
    expect((await http1(http, CREATE, { headers: { host: "127.0.0.1", ...headers }, body })).status).toBe(415);
  }
  const query = `?connect=v1&encoding=json&message=${encodeURIComponent(body)}`;
  expect((await http1(http, CREATE + query, { method: "GET", headers: { host: "127.0.0.1" } })).status).toBe(405);
  const asked = await http1(http, CREATE, {
    method: "OPTIONS",
    headers: {
      host: "127.0.0.1",
      origin: "http://localhost:1",
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type",
    },
  });
  expect(asked.headers.get("access-control-allow-origin")).toBeNull();
  expect(await service().query("select from users where username = 'mallory'")).toEqual([]);
});

test("with required credentials, any host name is accepted", async () => {
  await using asking = await startService({ access: CREDENTIALS });
  const response = await http1(asking.addresses.http, FLEET, {
    headers: { ...JSON_TYPE, host: "agents.example", origin: "https://agents.example" },
    body: "{}",
  });
  expect(failureOf(errorIn(response)).reason).toBe("UNAUTHENTICATED");
});
