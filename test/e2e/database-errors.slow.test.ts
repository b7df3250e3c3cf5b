import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { AgentStatus } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentService } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { TokenService } from "../../gen/harborforge/agents/v1/token_service_pb.ts";
import { UserService } from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { IfUnavailable } from "../../gen/harborforge/agents/v1/wake_pb.ts";
import { WakeService } from "../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { namedQuery } from "../../src/storage/queries.ts";
import { type Bound, newAgent, newUser } from "../support/contract-steps.ts";
import { FleetWatch, HeartbeatStream, Watch } from "../support/contract-streams.ts";
import { INTERNAL_TEXT, RAISED_ERRORS, type RaisedError } from "../support/database-errors.ts";
import { GRPC_JS, openClients, type ProtocolClients } from "../support/protocol-clients.ts";
import { type Failure, failureOf } from "../support/rpc-clients.ts";
import { type RunningService, startService, unique } from "../support/service.ts";
import { PATIENCE } from "../support/until.ts";

/** The error of the next statements with this text, and how often it occurs. */
interface Plan {
  readonly text: string;
  readonly raised: RaisedError;
  times: number;
}

let plan: Plan | undefined;
let seen: Set<string> | undefined;

// Every statement of the service passes here, from any pool.
const query = Reflect.get(pg.Client.prototype, "query");
vi.spyOn(pg.Client.prototype, "query").mockImplementation(function (this: pg.Client, ...given: unknown[]): unknown {
  const text = textOf(given[0]);
  if (!isOfSession(text)) seen?.add(text);
  if (plan?.text !== text || plan.times === 0) return Reflect.apply(query, this, given);
  plan.times -= 1;
  const error = plan.raised.make();
  // After any error of a commit, the transaction is over: the next user of the connection must not be in it.
  const ended = text.startsWith("COMMIT") ? Reflect.apply(query, this, ["ROLLBACK"]) : Promise.resolve();
  const callback = given.find((one) => typeof one === "function");
  const failed = ended.then(() => Promise.reject(error));
  if (callback === undefined) return failed;
  failed.catch((reason: unknown) => Reflect.apply(callback, undefined, [reason]));
  return undefined;
});

function textOf(config: unknown): string {
  if (typeof config === "string") return config;
  return typeof config === "object" && config !== null && "text" in config ? String(config.text) : "";
}

/** Statements that begin a session or check it. They belong to no call. */
function isOfSession(text: string): boolean {
  return text.includes("harborforge.session") || text.includes("pg_advisory_unlock_all()");
}

/** The statement that asks whether the database is available. */
const PROBE = "SELECT clock_timestamp() AS read_at, EXISTS";

let service: RunningService;
let clients: ProtocolClients & Disposable;
/** Statements that the service runs by itself; notifications and connections are told after calls, occasionally. */
const background = new Set(["SELECT pg_notify($1, $2)", namedQuery("record-connections").text]);
beforeAll(async () => {
  // No lease expires during the test: its change would be taken for a statement of a call.
  const pace = { shortestIntervalMs: 600_000, heartbeatsPerSecond: 10_000 };
  service = await startService({ pace, firstLeaseMs: 24 * 3_600_000 });
  clients = openClients(GRPC_JS, service.addresses);
  seen = background;
  await vi.waitUntil(() => [...background].some((text) => text.startsWith(PROBE)) && background.size > 3, PATIENCE);
  seen = undefined;
});
afterAll(async () => {
  plan = undefined;
  clients[Symbol.dispose]();
  await service[Symbol.asyncDispose]();
});

const { BUSY, ON_CALL } = AgentStatus;
const VIEWER = 2;

/** Every method, as a successful call. */
const METHODS: Readonly<Record<string, (agent: Bound) => Promise<unknown>>> = {
  GetUser: ({ user }) => clients.users.getUser({ key: { case: "id", value: user.id } }),
  ListUsers: () => clients.users.listUsers({ pageSize: 2 }),
  CreateUser: () => clients.users.createUser({ username: unique("user") }),
  "CreateUser with a request_id": () =>
    clients.users.createUser({ username: unique("user"), requestId: unique("request") }),
  "CreateUser with an agent": ({ claw }) =>
    clients.users.createUser({ username: unique("user"), agentId: unique("agent"), clawIdentifier: claw }),
  UpdateUser: ({ user }) => clients.users.updateUser({ id: user.id, displayName: unique("name") }),
  DeleteUser: ({ user }) => clients.users.deleteUser({ id: user.id }),
  CreateAgent: async () => {
    const user = await newUser(clients);
    await clients.agents.createAgent({ userId: user.id, agentId: unique("agent"), clawIdentifier: "claw" });
  },
  GetAgent: ({ agentId }) => clients.agents.getAgent({ key: { case: "agentId", value: agentId } }),
  BatchGetAgents: ({ agentId }) => clients.agents.batchGetAgents({ agentIds: [agentId] }),
  ListAgents: () => clients.agents.listAgents({ pageSize: 2 }),
  GetFleet: () => clients.agents.getFleet({}),
  ListAgentTransitions: ({ agentId }) => clients.agents.listAgentTransitions({ agentId }),
  ListIncidents: () => clients.agents.listIncidents({}),
  MoveAgent: ({ agentId }) => clients.agents.moveAgent({ agentId, clawIdentifier: unique("claw") }),
  UpdateAgentStatus: ({ agentId }) => clients.agents.updateAgentStatus({ agentId, status: BUSY }),
  DeleteAgent: ({ agentId }) => clients.agents.deleteAgent({ agentId }),
  SendHeartbeat: ({ agentId }) => clients.agents.sendHeartbeat({ beats: [{ agentId, status: ON_CALL }] }),
  Heartbeat: async ({ agentId }) => {
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId, status: ON_CALL }] });
  },
  WatchAgents: async ({ claw }) => {
    await using watch = new Watch(clients, { filter: { clawIdentifiers: [claw] } });
    await watch.untilComplete();
  },
  WatchFleet: async ({ claw }) => {
    await using watch = new FleetWatch(clients, { filter: { clawIdentifiers: [claw] } });
    await watch.untilComplete();
  },
  IssueToken: () => clients.tokens.issueToken({ principal: unique("p"), role: VIEWER, requestId: unique("request") }),
  ListTokens: () => clients.tokens.listTokens({}),
  RevokeToken: async () => {
    const { token } = await clients.tokens.issueToken({ principal: unique("p"), role: VIEWER });
    await clients.tokens.revokeToken({ keyId: token?.keyId ?? "" });
  },
  WakeAgent: queuedWake,
  CancelWake: async (agent) => {
    await clients.wakes.cancelWake({ wakeId: await queuedWake(agent) });
  },
  GetWake: async (agent) => {
    await clients.wakes.getWake({ wakeId: await queuedWake(agent) });
  },
  ListWakes: () => clients.wakes.listWakes({ pageSize: 2 }),
  FollowWake: async (agent) => {
    for await (const _ of clients.wakes.followWake({ wakeId: await queuedWake(agent) })) return;
  },
  PauseWakes: ({ agentId }) =>
    clients.wakes.pauseWakes({ target: { case: "agentId", value: agentId }, requestId: unique("request") }),
  ResumeWakes: ({ claw }) => clients.wakes.resumeWakes({ target: { case: "clawIdentifier", value: claw } }),
  ListPauses: () => clients.wakes.listPauses({}),
};

/** A wake that is queued, because no stream holds the agent. */
async function queuedWake({ agentId }: Bound): Promise<string> {
  const wakeId = unique("wake");
  await clients.wakes.wakeAgent({
    wakeId,
    target: { case: "agentId", value: agentId },
    ifUnavailable: IfUnavailable.QUEUE,
    expiresAt: timestampFromMs(Date.now() + 3_600_000),
  });
  return wakeId;
}

test("has a call for every method", () => {
  const services = [UserService, AgentService, TokenService, WakeService];
  const methods = services.flatMap((one) => one.methods.map(({ name }) => name));
  expect(methods.filter((name) => METHODS[name] === undefined)).toEqual([]);
});

/** Each statement fails with every kind, in the shapes that differ most. */
const ALWAYS = [
  "pg/lib/client.js: timeout expired",
  "SQLSTATE 53100",
  "SQLSTATE 57014",
  "SQLSTATE 57P01",
  "SQLSTATE XX001",
  "an unknown error",
  "SQLSTATE 28P01",
  "a mistake of ours",
];
/** And with a share of all others, another one each, so that together they cover all. */
const SHARE = 40;
let statements = 0;

function errorsForNextStatement(): readonly RaisedError[] {
  const place = statements++;
  // The pool accepts no other error.
  const errors = RAISED_ERRORS.filter(({ make }) => make() instanceof Error);
  return errors.filter(({ title }, index) => ALWAYS.includes(title) || index % SHARE === place % SHARE);
}

async function statementsOf(method: (agent: Bound) => Promise<unknown>): Promise<readonly string[]> {
  const runs: Set<string>[] = [];
  // A statement that is not in both runs belongs to concurrent work.
  for (let run = 0; run < 2; run += 1) {
    const agent = await newAgent(clients);
    const texts = new Set<string>();
    seen = texts;
    await method(agent);
    seen = undefined;
    runs.push(texts);
  }
  const [first, second] = runs;
  return [...(first ?? [])].filter((text) => second?.has(text) === true && !background.has(text));
}

/** The error of a call; undefined for a success. */
async function outcomeOf(call: Promise<unknown>): Promise<Failure | undefined> {
  const thrown: unknown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (thrown === undefined) return undefined;
  const error = thrown instanceof Error && thrown.cause instanceof ConnectError ? thrown.cause : thrown;
  if (!(error instanceof ConnectError)) throw thrown;
  return failureOf(error);
}

/** What a caller may read of a failure of this kind. */
function expectNamed(outcome: Failure | undefined, { kind }: RaisedError, what: string): void {
  if (outcome === undefined) return;
  expect(outcome.message, what).not.toContain(INTERNAL_TEXT);
  if (kind === "defect" && outcome.code === Code.Internal) {
    expect(outcome, what).toMatchObject({ message: "internal error", reason: "INTERNAL" });
    return;
  }
  expect({ ...outcome, code: Code[outcome.code] }, what).toMatchObject({
    code: "Unavailable",
    reason: "DATABASE_UNAVAILABLE",
    domain: "harborforge.agents",
    message: expect.stringMatching(/^The database /),
  });
  expect(outcome.retryMs, what).toBeGreaterThan(0);
}

test.each(Object.entries(METHODS))(
  "%s maps every error of the database to a reason, for each statement",
  { timeout: 60_000 },
  async (name, method) => {
    const texts = await statementsOf(method);
    expect(texts.length).toBeGreaterThan(0);
    for (const text of texts) {
      for (const raised of errorsForNextStatement()) {
        const agent = await newAgent(clients);
        plan = { text, raised, times: 1 };
        const outcome = await outcomeOf(method(agent));
        const what = `${name}, ${raised.title}, at: ${text.slice(0, 80)}`;
        expect(plan.times, what).toBe(0);
        plan = undefined;
        expectNamed(outcome, raised, what);
        // Transient failures without effect are retried, invisibly to the caller.
        if (raised.kind === "contention") expect(outcome, what).toBeUndefined();
      }
    }
  },
);

test("a commit with an unknown outcome is not retried without a request_id", async () => {
  for (const title of ["pg/lib/client.js: timeout expired", "an unknown error", "SQLSTATE 08006"]) {
    const raised = RAISED_ERRORS.find((one) => one.title === title);
    if (raised === undefined) throw new Error(`there is no error ${title}`);
    plan = { text: "COMMIT;", raised, times: 1 };
    const outcome = await outcomeOf(clients.users.createUser({ username: unique("user") }));
    expect(outcome).toMatchObject({
      reason: "DATABASE_UNAVAILABLE",
      message: expect.stringContaining("may or may not have taken effect"),
    });
  }
});

test("the cause is logged, for the database's operator", () => {
  const lines = service.logged.map((line): Record<string, unknown> => JSON.parse(line));
  const told = lines.filter(({ event }) => event === "call.database_failed");
  expect(told.length).toBeGreaterThan(0);
  expect(told[0]).toMatchObject({ reason: "DATABASE_UNAVAILABLE", err: { message: expect.any(String) } });
});
