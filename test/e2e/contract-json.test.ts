import type { ClientHttp2Session } from "node:http2";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectInvalid, expectRefusal, newAgent, present } from "../support/contract-steps.ts";
import { GRPC_JS, useClients } from "../support/protocol-clients.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { envelope, errorIn, http1, http2Call, http2Connect, type RawResponse, tcp } from "../support/rpc-raw.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const clients = useClients(GRPC_JS, service);

const USERS = "/harborforge.agents.v1.UserService";
const AGENTS = "/harborforge.agents.v1.AgentService";

let session: ClientHttp2Session;
beforeAll(async () => {
  session = await http2Connect(service().addresses.http);
});
afterAll(() => session.destroy());

/** JSON that is not a valid request of the method; `field` is empty for a violation of the whole request. */
async function expectWrongJson(call: Promise<unknown>, field: string): Promise<void> {
  const metadata = field === "" ? {} : { field };
  await expectRefusal(call, Code.InvalidArgument, "INVALID_FIELD", { fields: [field], metadata });
}

type Post = (path: string, body: string | Buffer, contentType?: string) => Promise<RawResponse>;

const WAYS: readonly { version: string; post: Post }[] = [
  {
    version: "1.1",
    post: (path, body, contentType = "application/json") =>
      http1(service().addresses.http, path, { headers: { "content-type": contentType }, body }),
  },
  {
    version: "2",
    post: async (path, body, contentType = "application/json") => {
      const { stream, response } = http2Call(session, path, { "content-type": contentType });
      stream.end(body);
      return await response;
    },
  },
];

describe.each(WAYS)("JSON on the wire, over HTTP/$version", ({ post }) => {
  const call = async (path: string, request: object): Promise<unknown> => {
    const response = await post(path, JSON.stringify(request));
    if (response.status !== 200) throw errorIn(response);
    return JSON.parse(response.body.toString());
  };

  test("has lowerCamelCase names, strings for int64, enum names, RFC 3339 times, and omits unset fields", async () => {
    const [username, agentId, clawIdentifier] = [unique("user"), unique("agent"), unique("claw")];
    const created = await call(`${USERS}/CreateUser`, { username, agentId, clawIdentifier });
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,9})?Z$/);
    const number = expect.stringMatching(/^[1-9]\d*$/);
    expect(created).toEqual({
      user: { id: number, username, agentId, createdAt: time },
      agent: {
        id: number,
        userId: number,
        agentId,
        clawIdentifier,
        status: "AGENT_STATUS_IDLE",
        createdAt: time,
        revision: number,
        leaseExpiresAt: time,
        statusChangedAt: time,
      },
    });
    expect(await call(`${AGENTS}/GetAgent`, { agentId })).toMatchObject({ agent: { agentId, clawIdentifier } });
  });

  test("keeps numbers beyond 2^53 exact, in both directions", async () => {
    const username = unique("user");
    const [row] = await service().query<{ id: string }>(
      `INSERT INTO users (id, username) OVERRIDING SYSTEM VALUE
       SELECT greatest(max(id), 9007199254740993) + 2, $1 FROM users RETURNING id`,
      username,
    );
    const { id } = present(row);
    expect(Number.isSafeInteger(Number(id))).toBe(false);
    expect(await call(`${USERS}/GetUser`, { id })).toMatchObject({ user: { id, username } });
    await expectRefusal(call(`${USERS}/GetUser`, { id: "9223372036854775807" }), Code.NotFound, "USER_NOT_FOUND", {
      metadata: { userId: "9223372036854775807" },
    });
    await expectInvalid(call(`${USERS}/GetUser`, { id: "9223372036854775808" }), "id");
  });

  test("accepts proto field names, numbers for int64 and enums, and durations as text", async () => {
    const { agentId, agent, claw } = await newAgent(clients);
    const answer = await call(`${AGENTS}/UpdateAgentStatus`, {
      agent_id: agentId,
      status: 4,
      exhaustion: { reason: "EXHAUST_REASON_BILLING", retryAfter: "90.5s" },
      expectedRevision: `${agent.revision}`,
      hold: "0.250s",
    });
    expect(answer).toMatchObject({
      agent: { status: "AGENT_STATUS_EXHAUSTED", exhaustReason: "EXHAUST_REASON_BILLING" },
    });
    const listed = await call(`${AGENTS}/ListAgents`, {
      filter: { user_ids: [Number(agent.userId)], claw_identifiers: [claw], statuses: ["AGENT_STATUS_EXHAUSTED"] },
    });
    expect(listed).toMatchObject({ agents: [{ agentId }] });
  });

  test.each([
    ["an unknown field", "ListAgents", { statuses: ["idle"] }, "statuses"],
    ["an unknown enum name", "ListAgents", { filter: { statuses: ["idle"] } }, "filter.statuses[0]"],
    ["an enum name without its prefix", "ListAgents", { filter: { statuses: [1, "IDLE"] } }, "filter.statuses[1]"],
    ["an unknown field in a filter", "GetFleet", { filter: { status: "AGENT_STATUS_IDLE" } }, "filter.status"],
    [
      "a misspelt field",
      "UpdateAgentStatus",
      { agentId: "a", status: "AGENT_STATUS_IDLE", expectedRev: 1 },
      "expectedRev",
    ],
    ["an unknown enum name in a change", "UpdateAgentStatus", { agentId: "a", status: "busy" }, "status"],
    ["text for a number", "ListAgents", { pageSize: "many" }, "pageSize"],
    ["a fraction for a number", "ListAgents", { pageSize: 1.5 }, "pageSize"],
    ["a number for text", "DeleteAgent", { agentId: 7 }, "agentId"],
    ["half a surrogate pair", "GetAgent", { agentId: "a\ud800" }, "agentId"],
    ["an int64 out of range", "GetAgent", { userId: "9223372036854775808" }, "userId"],
    ["an int64 whose digits JSON has lost", "GetAgent", { userId: 2 ** 53 }, "userId"],
    ["a duration without a unit", "SendHeartbeat", { leaseTtl: "60" }, "leaseTtl"],
    ["a duration with text behind it", "UpdateAgentStatus", { agentId: "a", status: 1, hold: "1s1" }, "hold"],
    [
      "a day that does not exist",
      "UpdateAgentStatus",
      { agentId: "a", status: 4, exhaustion: { reason: 1, recovery_at: "2027-02-30T00:00:00Z" } },
      "exhaustion.recovery_at",
    ],
    ["an object for a list", "BatchGetAgents", { agentIds: {} }, "agentIds"],
    ["null in a list", "BatchGetAgents", { agentIds: ["a", null] }, "agentIds[1]"],
    ["a list for an object", "GetFleet", { filter: [] }, "filter"],
    ["a field under both of its names", "GetAgent", { agentId: "a", agent_id: "a" }, "agent_id"],
    ["a name of the proto file, in that spelling", "ListAgents", { page_size: "many" }, "page_size"],
    ["two members of a oneof", "GetAgent", { agentId: "a", userId: "1" }, "userId"],
    ["a number that a rule forbids", "ListAgents", { pageSize: -1 }, "pageSize"],
    [
      "an instant that the domain forbids",
      "UpdateAgentStatus",
      { agentId: "a", status: 4, exhaustion: { reason: 1, recoveryAt: "2999-01-01T00:00:00Z" } },
      "exhaustion.recoveryAt",
    ],
  ])("rejects %s", async (_, method, request, field) => {
    const error = errorIn(await post(`${AGENTS}/${method}`, JSON.stringify(request)));
    expect(failureOf(error)).toMatchObject({
      code: Code.InvalidArgument,
      reason: "INVALID_FIELD",
      fields: expect.arrayContaining([field]),
      metadata: { field },
    });
  });

  test.each([
    ["an unknown enum name", { status: "busy" }, "status"],
    ["an unknown field", { state: 1 }, "state"],
    ["a misspelt field", { agentIdd: "b" }, "agentIdd"],
    ["text for a boolean", { leaving: "false" }, "leaving"],
    [
      "a duration with text behind it",
      { status: 4, exhaustion: { reason: 1, retryAfter: "0s or so" } },
      "exhaustion.retryAfter",
    ],
    [
      "two recoveries",
      { exhaustion: { reason: 1, retryAfter: "1s", recoveryAt: "2030-01-01T00:00:00Z" } },
      "exhaustion.recoveryAt",
    ],
    ["a rule of beats", { leaving: true, knownRevision: "-1" }, "knownRevision"],
  ])("rejects a beat with %s alone", async (_, fault, field) => {
    const { agentId } = await newAgent(clients);
    const beats = [
      { agentId, ...fault },
      { agentId, status: "AGENT_STATUS_BUSY" },
    ];
    const expected = {
      results: [
        {
          agentId,
          error: {
            code: 3,
            reason: "ERROR_REASON_INVALID_FIELD",
            message: expect.stringContaining(`beats[0].${field}: `),
          },
        },
        { agentId, beatIndex: 1, status: "AGENT_STATUS_BUSY" },
      ],
    };
    expect(await call(`${AGENTS}/SendHeartbeat`, { beats })).toMatchObject(expected);
  });

  test("rejects a beat that is no object alone, and names at most four faults of a beat", async () => {
    const { agentId } = await newAgent(clients);
    const many = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`x${index}`, index]));
    const answer = await call(`${AGENTS}/SendHeartbeat`, { beats: [null, "a", many, { agentId }] });
    expect(answer).toMatchObject({
      results: [
        { error: { message: "beats[0]: must be an object" } },
        { beatIndex: 1, error: { message: "beats[1]: must be an object" } },
        { beatIndex: 2, error: { message: expect.stringMatching(/^beats\[2\]\.x0: .*; and 5 more$/) } },
        { beatIndex: 3, agentId, status: "AGENT_STATUS_IDLE" },
      ],
    });
  });

  test("treats a null member of a oneof as absent, also if it is a message", async () => {
    const { agentId, agent } = await newAgent(clients);
    expect(await call(`${AGENTS}/GetAgent`, { agentId: null, userId: `${agent.userId}` })).toMatchObject({
      agent: { agentId },
    });
    const exhaustion = { reason: "EXHAUST_REASON_BILLING", recoveryAt: null, retryAfter: "90s" };
    const status = "AGENT_STATUS_EXHAUSTED";
    expect(await call(`${AGENTS}/UpdateAgentStatus`, { agentId, status, exhaustion })).toMatchObject({
      agent: { status, exhaustReason: "EXHAUST_REASON_BILLING" },
    });
    await expectInvalid(call(`${AGENTS}/GetAgent`, { agentId: null, userId: null }), "key");
    const twice = await post(`${AGENTS}/GetAgent`, '{"agentId":null,"userId":"1","userId":"2"}');
    await expectWrongJson(Promise.reject(errorIn(twice)), "");
  });

  test.each([
    [{ agentIdd: "a" }, "agentIdd: must not be there: GetAgentRequest has no such field; did you mean agentId?"],
    [{ colour: "a" }, "colour: must not be there: GetAgentRequest has no such field"],
    [{ userId: "many" }, "userId: must be a whole number from 1 to 9223372036854775807 in plain decimal digits"],
    [{ agentId: "a", userId: "1" }, "userId: must not be set together with agentId: set one of agentId, userId"],
  ])("says what is wrong with %j", async (request, message) => {
    expect(failureOf(errorIn(await post(`${AGENTS}/GetAgent`, JSON.stringify(request)))).message).toBe(message);
  });

  test("names all violations", async () => {
    const request = { filter: { statuses: ["idle", 1, "busy"], agentIds: [1], userIds: ["0x3"] }, pageSize: "1" };
    await expectInvalid(
      call(`${AGENTS}/ListAgents`, request),
      "filter.statuses[0]",
      "filter.statuses[2]",
      "filter.agent_ids[0]",
      "filter.user_ids[0]",
    );
  });

  test.each([
    "0x3",
    " 3 ",
    "3 ",
    "+3",
    "03",
    "3.0",
    "3e0",
    "0b11",
    "",
    "-0",
    "３",
  ])("rejects %j as a user's number", async (text) => {
    const { agent } = await newAgent(clients);
    const id = text.replace("3", `${agent.userId}`);
    await expectInvalid(call(`${USERS}/DeleteUser`, { id }), "id");
    expect(await call(`${USERS}/GetUser`, { id: `${agent.userId}` })).toMatchObject({
      user: { id: `${agent.userId}` },
    });
  });

  test("rejects broken UTF-8, which it could not store unchanged", async () => {
    const { agentId } = await newAgent(clients);
    const [before, after] = JSON.stringify({ agentId, clawIdentifier: "|" }).split("|");
    const body = Buffer.concat([Buffer.from(present(before)), Buffer.from([0xff, 0xfe]), Buffer.from(present(after))]);
    await expectWrongJson(Promise.reject(errorIn(await post(`${AGENTS}/MoveAgent`, body))), "");
    const watch = await post(`${AGENTS}/WatchAgents`, envelope(body), "application/connect+json");
    await expectWrongJson(Promise.reject(errorIn(watch)), "");
    const claw = `${unique("claw")}-é-😀-e\u0301`;
    expect(await call(`${AGENTS}/MoveAgent`, { agentId, clawIdentifier: claw })).toMatchObject({
      agent: { clawIdentifier: claw },
    });
  });

  test("rejects duplicate keys, and values that are no JSON object", async () => {
    const both = await post(`${USERS}/GetUser`, '{"id":"1","username":"ada"}');
    await expectInvalid(Promise.reject(errorIn(both)), "username");
    const twice = await post(`${USERS}/GetUser`, '{"id":"1","id":"2"}');
    await expectWrongJson(Promise.reject(errorIn(twice)), "");
    for (const text of ["", "{", "[]", "null", '"text"', "{}{}"]) {
      const response = await post(`${USERS}/ListUsers`, text);
      expect([text, response.status]).toEqual([text, 400]);
      await expectWrongJson(Promise.reject(errorIn(response)), "");
    }
  });

  test("rejects an enum number outside the contract; in a beat, it rejects that beat alone", async () => {
    const { agentId } = await newAgent(clients);
    await expectInvalid(call(`${AGENTS}/ListAgents`, { filter: { statuses: [1, 99] } }), "filter.statuses[1]");
    await expectInvalid(call(`${AGENTS}/UpdateAgentStatus`, { agentId, status: 99 }), "status");
    const beats = [
      { agentId, status: 99 },
      { agentId, status: 3 },
    ];
    expect(await call(`${AGENTS}/SendHeartbeat`, { beats })).toMatchObject({
      results: [
        { agentId, error: { code: 3, reason: "ERROR_REASON_INVALID_FIELD" } },
        { agentId, beatIndex: 1, status: "AGENT_STATUS_BUSY" },
      ],
    });
  });

  test("rejects in a watch the same values as in a call", async () => {
    for (const [request, field] of [
      ['{"statuses":["idle"]}', "statuses"],
      ['{"filter":{"statuses":["idle"]}}', "filter.statuses[0]"],
      ['{"filter":{"userIds":["0x3"]}}', "filter.user_ids[0]"],
      ['{"bookmarkInterval":"1s1"}', "bookmark_interval"],
      ['{"filter":{"statuses":[99]}}', "filter.statuses[0]"],
    ] as const) {
      const response = await post(`${AGENTS}/WatchAgents`, envelope(request), "application/connect+json");
      expect(response.status).toBe(200);
      await expectWrongJson(Promise.reject(errorIn(response)), field);
    }
  });

  test("rejects in gRPC-Web with JSON the same values as in Connect", async () => {
    const request = '{"filter":{"userIds":["0x3"]}}';
    const response = await post(`${AGENTS}/ListAgents`, envelope(request), "application/grpc-web+json");
    await expectWrongJson(Promise.reject(errorIn(response)), "filter.user_ids[0]");
  });

  test("has errors that people can read", async () => {
    const agentId = unique("agent");
    const response = await post(`${AGENTS}/GetAgent`, JSON.stringify({ agentId }));
    expect(response.status).toBe(404);
    expect(JSON.parse(response.body.toString())).toMatchObject({
      code: "not_found",
      message: expect.stringMatching(/\S/),
      details: [
        {
          type: "google.rpc.ErrorInfo",
          value: expect.any(String),
          debug: { reason: "AGENT_NOT_FOUND", domain: "harborforge.agents", metadata: { agentId } },
        },
      ],
    });
  });
});

describe("reads by GET", () => {
  const get = async (path: string, message: object) => {
    const query = new URLSearchParams({ connect: "v1", encoding: "json", message: JSON.stringify(message) });
    return await http1(service().addresses.http, `${path}?${query}`, { method: "GET" });
  };

  test("return the same as by POST", async () => {
    const { agentId, agent } = await newAgent(clients);
    const response = await get(`${AGENTS}/GetAgent`, { agentId });
    expect(response.status).toBe(200);
    expect(JSON.parse(response.body.toString())).toMatchObject({ agent: { agentId, revision: `${agent.revision}` } });
  });

  test("are as strict", async () => {
    await expectInvalid(Promise.reject(errorIn(await get(`${AGENTS}/ListAgents`, { statuses: ["idle"] }))), "statuses");
    const unknown = await get(`${AGENTS}/ListAgents`, { filter: { statuses: [99] } });
    await expectInvalid(Promise.reject(errorIn(unknown)), "filter.statuses[0]");
  });

  test("keep the bytes of a name or reject them", async () => {
    const message = encodeURIComponent('{"agentId":"|"}');
    for (const [name, valid] of [
      ["%c3%a9", true],
      ["%ff", false],
      ["%zz", false],
    ] as const) {
      const query = `connect=v1&encoding=json&message=${message.replace("%7C", name)}`;
      const response = await http1(service().addresses.http, `${AGENTS}/GetAgent?${query}`, { method: "GET" });
      expect(failureOf(errorIn(response))).toMatchObject(
        valid
          ? { reason: "AGENT_NOT_FOUND", metadata: { agentId: "é" } }
          : { code: Code.InvalidArgument, reason: "INVALID_FIELD" },
      );
    }
    const bytes = Buffer.from([...Buffer.from('{"agentId":"'), 0xff, ...Buffer.from('"}')]).toString("base64url");
    const query = `connect=v1&encoding=json&base64=1&message=${bytes}`;
    const response = await http1(service().addresses.http, `${AGENTS}/GetAgent?${query}`, { method: "GET" });
    await expectWrongJson(Promise.reject(errorIn(response)), "");
  });

  test.each([17_000, 60_000, 1_000_000])("of %i bytes are rejected in Connect's form", async (length) => {
    const address = service().addresses.http;
    const socket = await tcp(address);
    socket.write(`GET ${AGENTS}/ListAgents?message=${"x".repeat(length)} HTTP/1.1\r\nhost: ${address}\r\n\r\n`);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk);
    const [head = "", body = ""] = Buffer.concat(chunks).toString().split("\r\n\r\n");
    expect(head).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\n/);
    expect(head).toMatch(/\r\ncontent-type: application\/json/i);
    const headers = new Headers({ "content-type": "application/json" });
    const error = errorIn({ status: 429, headers, body: Buffer.from(body), trailers: new Headers() });
    await expectRefusal(Promise.reject(error), Code.ResourceExhausted, "LIMIT_EXCEEDED", {
      metadata: { limit: "maxHeaderBytes", maxHeaderBytes: "16384" },
    });
  });

  test("that are not HTTP are rejected as Node does, and never in the place of another response", async () => {
    const address = service().addresses.http;
    const answers = async (bytes: string) => {
      const socket = await tcp(address);
      socket.write(bytes);
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk);
      return (
        Buffer.concat(chunks)
          .toString()
          .match(/HTTP\/1\.1 \d+/g) ?? []
      );
    };
    expect(await answers("GET /healthz HTTP/1.1\r\nhost\r\n\r\n")).toEqual(["HTTP/1.1 400"]);
    const body = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n";
    expect((await answers(body)).length).toBeLessThanOrEqual(1);
    const call = `POST ${AGENTS}/ListAgents HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}`;
    const two = await answers(`${call}GET /${"x".repeat(20_000)} HTTP/1.1\r\n\r\n`);
    expect(two[0] ?? "HTTP/1.1 200").toBe("HTTP/1.1 200");
  });

  test("have the same size limit over HTTP/1.1 and HTTP/2", async () => {
    const over2 = async (path: string) => {
      const { stream, response } = http2Call(session, path, { ":method": "GET" });
      stream.end();
      return (await response).status;
    };
    const over1 = async (path: string) => (await http1(service().addresses.http, path, { method: "GET" })).status;
    const fits = `/healthz?${"x".repeat(15_900)}`;
    expect([await over1(fits), await over2(fits)]).toEqual([200, 200]);
    const long = `/healthz?${"x".repeat(16_400)}`;
    expect(await over1(long)).toBe(429);
    await expect(over2(long)).rejects.toThrow("NGHTTP2_ENHANCE_YOUR_CALM");
  });

  test("reject a change, which has no effect", async () => {
    const { agentId } = await newAgent(clients);
    const response = await get(`${AGENTS}/DeleteAgent`, { agentId });
    expect(response.status).toBe(405);
    expect(response.headers.get("allow")).toBe("POST");
    expect((await get(`${AGENTS}/GetAgent`, { agentId })).status).toBe(200);
  });
});
