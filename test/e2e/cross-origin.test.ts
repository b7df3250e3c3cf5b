import { afterEach, describe, expect, test } from "vitest";
import { CREDENTIALS } from "../support/access.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { errorIn, http1, http2Connect, type RawResponse } from "../support/rpc-raw.ts";
import { startService, useService } from "../support/service.ts";

const GET_AGENT = "/harborforge.agents.v1.AgentService/GetAgent";
const ORIGIN = "https://app.example";
const JSON_TYPE = { "content-type": "application/json" };

const service = useService({ access: { kind: "open" }, allowedOrigins: [ORIGIN, "http://localhost:5173"] });

type Headers = Readonly<Record<string, string>>;
type Ask = (method: string, headers: Headers) => Promise<{ status: number; headers: globalThis.Headers }>;

const sessions: (() => void)[] = [];
afterEach(() => {
  for (const close of sessions.splice(0)) close();
});

async function overHttp2(method: string, headers: Headers) {
  const session = await http2Connect(service().addresses.http);
  sessions.push(() => session.destroy());
  const stream = session.request({ ":method": method, ":path": GET_AGENT, ...headers });
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; headers: globalThis.Headers }>();
  stream.on("error", reject).on("response", (all) => {
    const seen = new Headers();
    for (const [name, value] of Object.entries(all)) if (!name.startsWith(":")) seen.set(name, String(value));
    resolve({ status: Number(all[":status"]), headers: seen });
  });
  stream.end(method === "POST" ? '{"agentId":"nobody"}' : undefined);
  return await promise;
}

async function overHttp1(method: string, headers: Headers): Promise<RawResponse> {
  const body = method === "POST" ? '{"agentId":"nobody"}' : "";
  return await http1(service().addresses.http, GET_AGENT, { method, headers: { host: "127.0.0.1", ...headers }, body });
}

const ask: readonly (readonly [string, Ask])[] = [
  ["HTTP/1.1", overHttp1],
  ["HTTP/2", overHttp2],
];

/** What a browser asks before the call of a page. */
const preflight = (origin: string): Headers => ({
  origin,
  "access-control-request-method": "POST",
  "access-control-request-headers": "authorization,connect-protocol-version,content-type",
});

const list = (text: string | null): string[] => (text ?? "").toLowerCase().split(", ");

describe.each(ask)("over %s, a page of an allowed origin", (_, send) => {
  test("gets responses that caches keep apart by origin and by compression", async () => {
    const { headers } = await send("POST", { ...JSON_TYPE, origin: ORIGIN });
    expect(list(headers.get("vary"))).toEqual(["origin", "accept-encoding"]);
  });

  test("gets an answer to its preflight, with all that Connect and gRPC-Web need", async () => {
    const { status, headers } = await send("OPTIONS", preflight(ORIGIN));
    expect(status).toBe(204);
    expect(headers.get("access-control-allow-origin")).toBe(ORIGIN);
    expect(headers.get("access-control-allow-credentials")).toBe("true");
    expect(headers.get("access-control-max-age")).toBe("7200");
    expect(headers.get("vary")).toBe("Origin");
    expect(list(headers.get("access-control-allow-methods"))).toEqual(["post", "get"]);
    expect(list(headers.get("access-control-allow-headers"))).toEqual(
      expect.arrayContaining([
        "authorization",
        "content-type",
        "connect-protocol-version",
        "connect-timeout-ms",
        "grpc-timeout",
        "x-grpc-web",
        "x-user-agent",
      ]),
    );
  });

  test("may read responses, and errors", async () => {
    const { status, headers } = await send("POST", { ...JSON_TYPE, origin: ORIGIN });
    expect(status).toBe(404);
    expect(headers.get("access-control-allow-origin")).toBe(ORIGIN);
    expect(headers.get("access-control-allow-credentials")).toBe("true");
    expect(list(headers.get("access-control-expose-headers"))).toEqual(
      expect.arrayContaining(["grpc-status", "grpc-message", "grpc-status-details-bin"]),
    );
  });
});

describe.each(ask)("over %s, a page of another origin", (_, send) => {
  test.each([
    "https://evil.example",
    "https://app.example.evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example:443",
    "https://APP.example",
    "https://app.example/",
    "https://sub.app.example",
    `${ORIGIN}, https://evil.example`,
    "null",
    "*",
    "",
  ])("gets no permission: %s", async (origin) => {
    for (const method of ["OPTIONS", "POST"]) {
      const more = method === "OPTIONS" ? preflight(origin) : { ...JSON_TYPE, origin };
      const { status, headers } = await send(method, more);
      expect(status).toBe(403);
      const granted = [...headers.keys()].filter((name) => name.startsWith("access-control-"));
      expect(granted).toEqual([]);
    }
  });
});

test("programs that are no pages are served as before", async () => {
  const { headers, ...response } = await overHttp1("POST", JSON_TYPE);
  expect(failureOf(errorIn({ headers, ...response }))).toMatchObject({ reason: "AGENT_NOT_FOUND" });
  expect([...headers.keys()].filter((name) => name.startsWith("access-control-"))).toEqual([]);
  expect((await overHttp1("OPTIONS", {})).status).toBe(405);
});

test("an allowed origin does not make up for another host name", async () => {
  const response = await overHttp1("POST", { ...JSON_TYPE, origin: ORIGIN, host: "evil.example" });
  expect(failureOf(errorIn(response))).toMatchObject({ reason: "PERMISSION_DENIED", metadata: { header: "host" } });
});

test("a page may read why its credential is rejected", async () => {
  await using asking = await startService({ access: CREDENTIALS, allowedOrigins: [ORIGIN] });
  const { http } = asking.addresses;
  const from = (origin: string) =>
    http1(http, GET_AGENT, { headers: { ...JSON_TYPE, host: "agents.example", origin }, body: "{}" });
  const allowed = await from(ORIGIN);
  expect(failureOf(errorIn(allowed)).reason).toBe("UNAUTHENTICATED");
  expect(allowed.headers.get("access-control-allow-origin")).toBe(ORIGIN);
  // With required credentials the service does not check origins. Browsers do.
  const other = await from("https://evil.example");
  expect(failureOf(errorIn(other)).reason).toBe("UNAUTHENTICATED");
  expect(other.headers.get("access-control-allow-origin")).toBeNull();
  const preflighted = await http1(http, GET_AGENT, {
    method: "OPTIONS",
    headers: { host: "agents.example", ...preflight(ORIGIN) },
  });
  expect(preflighted.status).toBe(204);
});
