import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { DescMethod, DescMethodStreaming, DescMethodUnary, DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ROLES, type Role } from "../../src/domain/principal.ts";
import { createPipeline } from "../../src/rpc/pipeline/pipeline.ts";
import { createHealth } from "../../src/rpc/services/health.ts";
import { createServices } from "../../src/rpc/services/services.ts";
import { Metrics } from "../../src/telemetry/metrics/metrics.ts";
import { CREDENTIALS, forClaw, openMint } from "../support/access.ts";
import { createFakeBackend } from "../support/fake-backend.ts";
import { section } from "../support/fenced-blocks.ts";
import { checkout } from "../support/program.ts";
import { bearing, GRPC_JS, PROTOCOLS } from "../support/protocol-clients.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { useService } from "../support/service.ts";

type Callers = readonly Role[] | "everybody";

const READERS: Callers = ["agent", "service", "admin", "viewer"];
const PEOPLE: Callers = ["service", "admin", "viewer"];
const ADMIN: Callers = ["admin"];

/**
 * The expected table, written independently of the code: which role may call which method. A missing method
 * fails.
 */
const EXPECTED: Readonly<Record<string, Callers>> = {
  "harborforge.agents.v1.UserService/CreateUser": ADMIN,
  "harborforge.agents.v1.UserService/GetUser": PEOPLE,
  "harborforge.agents.v1.UserService/ListUsers": PEOPLE,
  "harborforge.agents.v1.UserService/UpdateUser": ADMIN,
  "harborforge.agents.v1.UserService/DeleteUser": ADMIN,
  "harborforge.agents.v1.AgentService/CreateAgent": ADMIN,
  "harborforge.agents.v1.AgentService/GetAgent": READERS,
  "harborforge.agents.v1.AgentService/BatchGetAgents": READERS,
  "harborforge.agents.v1.AgentService/ListAgents": READERS,
  "harborforge.agents.v1.AgentService/GetFleet": READERS,
  "harborforge.agents.v1.AgentService/MoveAgent": ADMIN,
  "harborforge.agents.v1.AgentService/UpdateAgentStatus": ["service", "admin"],
  "harborforge.agents.v1.AgentService/DeleteAgent": ADMIN,
  "harborforge.agents.v1.AgentService/ListAgentTransitions": READERS,
  "harborforge.agents.v1.AgentService/ListIncidents": READERS,
  "harborforge.agents.v1.AgentService/SendHeartbeat": ["agent"],
  "harborforge.agents.v1.AgentService/Heartbeat": ["agent"],
  "harborforge.agents.v1.AgentService/WatchAgents": READERS,
  "harborforge.agents.v1.AgentService/WatchFleet": READERS,
  "harborforge.agents.v1.TokenService/IssueToken": ADMIN,
  "harborforge.agents.v1.TokenService/ListTokens": ADMIN,
  "harborforge.agents.v1.TokenService/RevokeToken": ADMIN,
  "harborforge.agents.v1.WakeService/WakeAgent": ["service", "admin"],
  "harborforge.agents.v1.WakeService/CancelWake": ["service", "admin"],
  "harborforge.agents.v1.WakeService/GetWake": PEOPLE,
  "harborforge.agents.v1.WakeService/ListWakes": PEOPLE,
  "harborforge.agents.v1.WakeService/FollowWake": ["service", "admin"],
  "harborforge.agents.v1.WakeService/PauseWakes": ADMIN,
  "harborforge.agents.v1.WakeService/ResumeWakes": ADMIN,
  "harborforge.agents.v1.WakeService/ListPauses": PEOPLE,
  "grpc.health.v1.Health/Check": "everybody",
  "grpc.health.v1.Health/List": "everybody",
  "grpc.health.v1.Health/Watch": "everybody",
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": READERS,
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": READERS,
};

/** All methods of both listeners, by the services registered there. */
function served(): readonly DescService[] {
  const pipeline = createPipeline({ log: pino({ level: "silent" }), metrics: new Metrics() });
  return createServices(pipeline, createHealth(), createFakeBackend()).map(({ service }) => service);
}

const METHODS = served().flatMap((service) => service.methods);
const nameOf = (method: DescMethod): string => `${method.parent.typeName}/${method.name}`;

const service = useService({ access: CREDENTIALS });
const secrets = new Map<Role, string>();

beforeAll(async () => {
  await using mint = openMint(service().databaseUrl);
  for (const role of ROLES) {
    secrets.set(role, (await mint.issue(role === "agent" ? forClaw("claw-1") : { role })).secret);
  }
});

test("has an access rule for every method, and for no other one", () => {
  expect(METHODS.map(nameOf).sort()).toEqual(Object.keys(EXPECTED).sort());
});

/** Calls a method with an empty request. @returns the error; undefined after a response */
async function outcome(transport: Transport, method: DescMethod): Promise<ConnectError | undefined> {
  const giveUp = new AbortController();
  try {
    if (isUnary(method)) {
      await transport.unary(method, giveUp.signal, undefined, undefined, {});
    } else if (isStreaming(method)) {
      const { message } = await transport.stream(method, giveUp.signal, undefined, undefined, once());
      // The first response shows that the call was permitted; later errors are not checked here.
      for await (const _ of message) break;
    }
    return undefined;
  } catch (error) {
    return ConnectError.from(error);
  } finally {
    giveUp.abort();
  }
}

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

function isStreaming(method: DescMethod): method is DescMethodStreaming {
  return !isUnary(method);
}

async function* once(): AsyncGenerator<Record<string, unknown>> {
  yield {};
}

const CONNECT_JSON_HTTP2 = PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2") ?? GRPC_JS;

describe.each([GRPC_JS, CONNECT_JSON_HTTP2])("$name", (protocol) => {
  let opened: ReturnType<typeof protocol.open>;
  beforeAll(() => {
    opened = protocol.open(service().addresses);
  });
  afterAll(() => opened.close());

  describe.each(METHODS.map((method) => ({ name: nameOf(method), method })))("$name", ({ name, method }) => {
    const who = EXPECTED[name] ?? [];

    test.each(ROLES)("checks the role %s", async (role) => {
      const error = await outcome(bearing(opened.transport, secrets.get(role)), method);
      const allowed = who === "everybody" || who.includes(role);
      const failed = error && failureOf(error);
      const byRole = failed?.reason === "PERMISSION_DENIED" && failed.metadata?.role !== undefined;
      expect(byRole, `${name} by ${role}: ${error?.message}`).toBe(!allowed);
      if (byRole) {
        expect(failed).toMatchObject({ code: Code.PermissionDenied, metadata: { role, method: name } });
      } else {
        expect(failed?.reason).not.toBe("UNAUTHENTICATED");
        expect(failed?.code).not.toBe(Code.Internal);
      }
    });

    test("requires a credential, except in public methods", async () => {
      const error = await outcome(opened.transport, method);
      if (who === "everybody") expect(error && failureOf(error).reason).not.toBe("UNAUTHENTICATED");
      else expect(error && failureOf(error)).toMatchObject({ code: Code.Unauthenticated, reason: "UNAUTHENTICATED" });
    });

    test.runIf(who !== "everybody")("rejects an invalid credential", async () => {
      const broken = `${(secrets.get("admin") ?? "").slice(0, -1)}~`;
      const error = await outcome(bearing(opened.transport, broken), method);
      expect(error && failureOf(error)).toMatchObject({ code: Code.Unauthenticated, reason: "UNAUTHENTICATED" });
    });
  });
});

test("the table in the documentation is the same", async () => {
  const text = await readFile(join(checkout, "docs/authentication.md"), "utf8");
  const rows = section(text, "methods").trim().split("\n").slice(2);
  const documented = rows.map((row) => {
    const [name = "", ...cells] = row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    return [name.replaceAll("`", ""), ROLES_IN_COLUMNS.filter((_, column) => cells[column] === "yes")];
  });
  const expected = Object.entries(EXPECTED)
    .filter(([name]) => name.startsWith("harborforge."))
    .map(([name, who]) => [name.replace("harborforge.agents.v1.", "").replace("/", "."), who]);
  expect(documented).toEqual(expected);
});

const ROLES_IN_COLUMNS: readonly Role[] = ["agent", "service", "admin", "viewer"];
