import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { Role } from "../../gen/harborforge/agents/v1/token_pb.ts";
import { type Bound, getAgent, newAgent, newUser, present, rateLimit, setStatus } from "../support/contract-steps.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { GRPC_JS, openClients, PROTOCOLS, type ProtocolClients } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { startReplica, startService, unique } from "../support/service.ts";

const { IDLE, ON_CALL, EXHAUSTED } = AgentStatus;
const HTTP1 = present(PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/1.1"));

interface Scene extends AsyncDisposable {
  /** A replica whose path to the database a test can stall. */
  readonly stalling: ProtocolClients;
  readonly other: ProtocolClients;
  readonly proxy: FaultProxy;
  /** Resolves when the stalled replica has settled every earlier change. */
  settled(): Promise<void>;
  query<Row extends object>(sql: string, ...values: readonly unknown[]): Promise<Row[]>;
}

async function openScene(protocol: typeof GRPC_JS): Promise<Scene> {
  await using undo = new AsyncDisposableStack();
  const service = undo.use(await startService());
  const database = new URL(service.databaseUrl);
  const port = Number(database.port);
  const proxy = undo.use(await FaultProxy.open(() => [port]));
  database.hostname = "127.0.0.1";
  database.port = String(proxy.port);
  const replica = undo.use(await startReplica(database.href));
  const stalling = undo.use(openClients(protocol, replica.addresses));
  const other = undo.use(openClients(protocol, service.addresses));
  const settled = async (): Promise<void> => {
    // Groups follow each other, and changes of users wait in the order of their arrival.
    const after = await newAgent(stalling);
    await Promise.all(
      Array.from({ length: 5 }, () => stalling.users.updateUser({ id: after.user.id, displayName: "after" })),
    );
  };
  const everything = undo.move();
  return {
    stalling,
    other,
    proxy,
    settled,
    query: service.query,
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  };
}

/** The log of an agent after its creation. */
async function storyOf({ agents }: ProtocolClients, { agentId, agent }: Bound): Promise<AgentStatus[]> {
  const { transitions } = await agents.listAgentTransitions({ agentId, afterRevision: agent.revision });
  expect(transitions.every(({ cause }) => cause === TransitionCause.SERVICE)).toBe(true);
  return transitions.map(({ toStatus }) => toStatus);
}

test.for([GRPC_JS, HTTP1])("a rejected claim is not applied when the database of its first replica returns ($name)", {
  timeout: 60_000,
}, async (protocol) => {
  await using scene = await openScene(protocol);
  const { stalling, other, proxy } = scene;
  const bound = await newAgent(other);
  const claim = { agentId: bound.agentId, status: ON_CALL, requestId: unique("claim") };
  // So that the replica knows the database's clock, and its connections are open.
  await setStatus(stalling, bound.agentId, IDLE);

  proxy.swallow();
  expect(await failure(stalling.agents.updateAgentStatus(claim, { timeoutMs: 1_000 }))).toMatchObject({
    code: Code.DeadlineExceeded,
  });
  await other.agents.updateAgentStatus({ agentId: bound.agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
  expect(await failure(other.agents.updateAgentStatus(claim))).toMatchObject({ reason: "AGENT_EXHAUSTED" });
  await setStatus(other, bound.agentId, IDLE);
  proxy.mend();
  await scene.settled();

  expect(await storyOf(other, bound)).toEqual([EXHAUSTED, IDLE]);
  // The rejection is not recorded: the same request is judged again, and applied.
  expect((await other.agents.updateAgentStatus(claim)).agent?.status).toBe(ON_CALL);
  expect((await stalling.agents.updateAgentStatus(claim)).agent?.status).toBe(ON_CALL);
  expect(await storyOf(other, bound)).toEqual([EXHAUSTED, IDLE, ON_CALL]);
});

test("no call that ended with DEADLINE_EXCEEDED changes anything later, whatever it requested", {
  timeout: 60_000,
}, async () => {
  await using scene = await openScene(GRPC_JS);
  const { stalling, other, proxy, query } = scene;
  const [claimed, moved, deleted, beaten] = [
    await newAgent(other),
    await newAgent(other),
    await newAgent(other),
    await newAgent(other),
  ];
  const [renamed, removed, owner] = [await newUser(other), await newUser(other), await newUser(other)];
  const stranger = unique("stranger");
  const token = { principal: unique("principal"), role: Role.SERVICE };
  await stalling.users.updateUser({ id: renamed.id, displayName: "before" });
  await stalling.agents.sendHeartbeat({ beats: [{ agentId: beaten.agentId }] });

  proxy.swallow();
  const soon = { timeoutMs: 500 };
  const outcomes = await Promise.all(
    [
      stalling.agents.updateAgentStatus({ agentId: claimed.agentId, status: ON_CALL }, soon),
      stalling.agents.moveAgent({ agentId: moved.agentId, clawIdentifier: "elsewhere" }, soon),
      stalling.agents.deleteAgent({ agentId: deleted.agentId }, soon),
      stalling.agents.createAgent({ userId: owner.id, agentId: stranger, clawIdentifier: "claw" }, soon),
      stalling.agents.sendHeartbeat({ beats: [{ agentId: beaten.agentId, status: ON_CALL }] }, soon),
      stalling.users.createUser({ username: stranger }, soon),
      stalling.users.createUser({ username: `${stranger}-2`, agentId: `${stranger}-2`, clawIdentifier: "claw" }, soon),
      stalling.users.updateUser({ id: renamed.id, displayName: "after", requestId: unique("rename") }, soon),
      stalling.users.deleteUser({ id: removed.id }, soon),
      stalling.tokens.issueToken(token, soon),
    ].map((call) => failure(call)),
  );
  expect(outcomes.map(({ code }) => Code[code])).toEqual(outcomes.map(() => "DeadlineExceeded"));
  proxy.mend();
  await scene.settled();

  for (const { agentId } of [claimed, moved, beaten]) {
    const { status, clawIdentifier } = await getAgent(other, agentId);
    expect({ status, moved: clawIdentifier === "elsewhere" }).toEqual({ status: IDLE, moved: false });
  }
  expect((await getAgent(other, deleted.agentId)).status).toBe(IDLE);
  const { users } = await other.users.listUsers({ pageSize: 1_000 });
  expect(users.filter(({ username }) => username.startsWith(stranger))).toEqual([]);
  expect(users.find(({ id }) => id === renamed.id)?.displayName).toBe("before");
  expect(users.some(({ id }) => id === removed.id)).toBe(true);
  expect(await query("SELECT FROM api_tokens")).toHaveLength(0);
  expect(await query("SELECT FROM agents WHERE agent_id LIKE $1 || '%'", stranger)).toHaveLength(0);
});

test("a call that is cancelled before its change is sent changes nothing", { timeout: 60_000 }, async () => {
  await using scene = await openScene(GRPC_JS);
  const { stalling, other, proxy } = scene;
  const bound = await newAgent(other);
  const owner = await newUser(other);
  await setStatus(stalling, bound.agentId, IDLE);
  await stalling.users.updateUser({ id: owner.id, displayName: "before" });
  proxy.swallow();
  const gone = new AbortController();
  const { signal } = gone;
  const calls = [
    stalling.agents.updateAgentStatus({ agentId: bound.agentId, status: ON_CALL }, { signal }),
    stalling.users.updateUser({ id: owner.id, displayName: "after" }, { signal }),
    stalling.agents.sendHeartbeat({ beats: [{ agentId: bound.agentId, status: ON_CALL }] }, { signal }),
  ].map((call) => failure(call));
  // On the same connection, behind the others, and without a query.
  await stalling.health.check({});
  gone.abort();
  expect((await Promise.all(calls)).map(({ code }) => code)).toEqual(calls.map(() => Code.Canceled));
  proxy.mend();
  await scene.settled();
  expect(await storyOf(other, bound)).toEqual([]);
  expect((await other.users.getUser({ key: { case: "id", value: owner.id } })).user?.displayName).toBe("before");
});
