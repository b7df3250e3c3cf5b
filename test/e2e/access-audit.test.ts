import type { DescMethod, DescMethodUnary } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { WakeService } from "../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { accessRule } from "../../src/rpc/pipeline/access-rules.ts";
import { CREDENTIALS, openMint } from "../support/access.ts";
import { bearing, GRPC_JS, PROTOCOLS } from "../support/protocol-clients.ts";
import { unique, useService } from "../support/service.ts";

/** Every method that is not marked as free of side effects. */
const MUTATING = [UserService, AgentService, TokenService, WakeService]
  .flatMap((service): readonly DescMethod[] => service.methods)
  .filter(({ idempotency }) => idempotency !== Idempotency.NO_SIDE_EFFECTS);

/** The log of transitions records agents' own reports: a line for each beat would flood the audit log. */
const NOT_AUDITED = ["AgentService.SendHeartbeat", "AgentService.Heartbeat"];

const nameOf = (method: DescMethod): string => `${method.parent.name}.${method.name}`;
const AUDITED = MUTATING.filter((method) => !NOT_AUDITED.includes(nameOf(method)));

const service = useService({ access: CREDENTIALS });
let admin = { secret: "", actor: "", credential: "" };
let viewer = "";

beforeAll(async () => {
  await using mint = openMint(service().databaseUrl);
  const { secret, token } = await mint.issue({ role: "admin" });
  admin = { secret, actor: `user:${token.principal}`, credential: `token:${token.keyId}` };
  viewer = (await mint.issue({ role: "viewer" })).secret;
});

type Json = Readonly<Record<string, unknown>>;
type Call = (method: string, request: Json) => Promise<Json>;

/** The expected fields of a line, besides principal and method. */
interface Plan {
  readonly request: Json;
  readonly subject: Json;
}

async function newUser(call: Call) {
  const name = unique("audited");
  const answer = await call("UserService.CreateUser", { username: name, agentId: name, clawIdentifier: "c-1" });
  return { name, id: String(Reflect.get(Object(answer.user), "id")) };
}

/** A wake that is queued, with a payload that must not be logged. */
async function newWake(call: Call) {
  const { name } = await newUser(call);
  return {
    wakeId: unique("wake"),
    target: { case: "agentId", value: name },
    ifUnavailable: 2,
    expiresAt: timestampFromMs(Date.now() + 60_000),
    payload: new TextEncoder().encode("Somewhere else"),
  };
}

/** A call of each method that changes something. A missing method fails. */
const PLANS: Readonly<Record<string, (call: Call) => Promise<Plan>>> = {
  "UserService.CreateUser": async () => {
    const name = unique("audited");
    const subject = { username: name, agentId: name, clawIdentifier: "c-1", requestId: name };
    return { request: { ...subject, email: `${name}@example.org`, displayName: "Ada of Somewhere" }, subject };
  },
  "UserService.UpdateUser": async (call) => {
    const { id } = await newUser(call);
    return { request: { id, displayName: "Ada of Somewhere" }, subject: { id } };
  },
  "UserService.DeleteUser": async (call) => {
    const { id } = await newUser(call);
    return { request: { id }, subject: { id } };
  },
  "AgentService.CreateAgent": async (call) => {
    const { id, name } = await newUser(call);
    await call("AgentService.DeleteAgent", { agentId: name });
    const agentId = unique("audited");
    return {
      request: { userId: id, agentId, clawIdentifier: "c-2" },
      subject: { userId: id, agentId, clawIdentifier: "c-2" },
    };
  },
  "AgentService.MoveAgent": async (call) => {
    const { name } = await newUser(call);
    return {
      request: { agentId: name, clawIdentifier: "c-3" },
      subject: { agentId: name, clawIdentifier: "c-3" },
    };
  },
  "AgentService.UpdateAgentStatus": async (call) => {
    const { name } = await newUser(call);
    return { request: { agentId: name, status: 3 }, subject: { agentId: name, status: "AGENT_STATUS_BUSY" } };
  },
  "AgentService.DeleteAgent": async (call) => {
    const { name } = await newUser(call);
    return { request: { agentId: name }, subject: { agentId: name } };
  },
  "TokenService.IssueToken": async () => {
    const principal = unique("audited");
    return {
      request: { principal, role: 1, agentIds: ["scribe-1", "scribe-2"] },
      subject: { principal, role: "ROLE_AGENT", agentIds: ["scribe-1", "scribe-2"], keyId: expect.any(String) },
    };
  },
  "TokenService.RevokeToken": async (call) => {
    const { token } = await call("TokenService.IssueToken", { principal: unique("audited"), role: 4 });
    const keyId = String(Reflect.get(Object(token), "keyId"));
    return { request: { keyId }, subject: { keyId } };
  },
  "WakeService.WakeAgent": async (call) => {
    const request = await newWake(call);
    return { request, subject: { wakeId: request.wakeId, agentId: request.target.value } };
  },
  "WakeService.CancelWake": async (call) => {
    const request = await newWake(call);
    await call("WakeService.WakeAgent", request);
    return { request: { wakeId: request.wakeId, note: "Somewhere else" }, subject: { wakeId: request.wakeId } };
  },
  "WakeService.PauseWakes": async (call) => {
    const { name } = await newUser(call);
    const target = { case: "agentId", value: name };
    return { request: { target, note: "Somewhere else" }, subject: { agentId: name } };
  },
  "WakeService.ResumeWakes": async () => {
    const name = unique("claw");
    return { request: { target: { case: "clawIdentifier", value: name } }, subject: { clawIdentifier: name } };
  },
};

/** The permitted fields of a line: names and numbers, and no secrets. */
const KNOWN = new Set(
  "level time audit event msg actor credential method id userId username agentId agentIds clawIdentifier wakeId status principal role keyId requestId".split(
    " ",
  ),
);

const auditLines = (): Json[] =>
  service()
    .logged.map((line): Json => JSON.parse(line))
    .filter(({ audit }) => audit === true);

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

function caller(transport: Transport, secret: string): Call {
  const known = bearing(transport, secret);
  return async (name, request) => {
    const method = MUTATING.find((one) => nameOf(one) === name);
    if (method === undefined || !isUnary(method)) throw new Error(`${name} is no call with one answer`);
    return { ...(await known.unary(method, undefined, undefined, undefined, { ...request })).message };
  };
}

test("audits every method that changes something by its rule, and tests each of them", () => {
  expect(AUDITED.filter((method) => accessRule(method)?.audited !== true).map(nameOf)).toEqual([]);
  expect(AUDITED.map(nameOf).sort()).toEqual(Object.keys(PLANS).sort());
});

const JSON_HTTP1 = PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/1.1") ?? GRPC_JS;

describe.each([GRPC_JS, JSON_HTTP1])("$name", (protocol) => {
  let opened: ReturnType<typeof protocol.open>;
  beforeAll(() => {
    opened = protocol.open(service().addresses);
  });
  afterAll(() => opened.close());

  test.each(
    AUDITED.map((method) => ({ name: nameOf(method), method })),
  )("$name logs the principal and the target once, and logs nothing when it is rejected", async ({ name, method }) => {
    const call = caller(opened.transport, admin.secret);
    const plan = PLANS[name];
    if (plan === undefined) throw new Error(`there is no plan for ${name}`);
    const { request, subject } = await plan(call);
    const before = auditLines().length;

    const denied = await caller(opened.transport, viewer)(name, request).catch((error: unknown) => error);
    expect(denied).toBeInstanceOf(ConnectError);
    await expect(call(name, { requestId: "x".repeat(1_000) })).rejects.toThrow();
    expect(auditLines().length).toBe(before);

    const answer = await call(name, request);
    const [line = {}, ...others] = auditLines().slice(before);
    expect(others).toEqual([]);
    const full = `${method.parent.typeName}/${method.name}`;
    expect(line).toMatchObject({
      level: 30,
      event: "audit.call",
      actor: admin.actor,
      credential: admin.credential,
      method: full,
      ...subject,
    });
    expect(Object.keys(line).filter((key) => !KNOWN.has(key) && key !== "pid" && key !== "hostname")).toEqual([]);
    const told = service().logged.join("\n");
    for (const secret of [admin.secret, viewer, String(answer.secret || "hf_")]) {
      if (secret !== "hf_") expect(told.includes(secret.split("_")[2] ?? secret)).toBe(false);
    }
    expect(JSON.stringify(line)).not.toMatch(/Somewhere|example\.org/);
  });
});
