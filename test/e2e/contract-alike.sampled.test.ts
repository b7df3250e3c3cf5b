import type { Message } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { newAgent, present, rateLimit, setStatus } from "../support/contract-steps.ts";
import { Watch } from "../support/contract-streams.ts";
import {
  GRPC_JS,
  type ProtocolClients,
  TESTED_GET_PROTOCOLS,
  TESTED_PROTOCOLS,
  useClients,
} from "../support/protocol-clients.ts";
import { type Failure, failure } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const OTHERS = [...TESTED_PROTOCOLS, ...TESTED_GET_PROTOCOLS].filter((protocol) => protocol !== GRPC_JS);

type Call = (clients: ProtocolClients, names: Names) => Promise<unknown>;

/** The agents of the calls: made once, read by all. */
interface Names {
  readonly agentId: string;
  readonly username: string;
  readonly userId: bigint;
  readonly claw: string;
  readonly offlineId: string;
  readonly exhaustedId: string;
  readonly requestId: string;
}

let names: Promise<Names> | undefined;

async function make(clients: ProtocolClients): Promise<Names> {
  const claw = unique("claw");
  const [bound, offline, exhausted] = [
    await newAgent(clients, claw),
    await newAgent(clients, claw),
    await newAgent(clients, claw),
  ];
  await setStatus(clients, offline.agentId, AgentStatus.OFFLINE);
  const exhaustion = rateLimit(3_600n);
  await clients.agents.updateAgentStatus({ agentId: exhausted.agentId, status: AgentStatus.EXHAUSTED, exhaustion });
  const requestId = unique("request");
  await clients.users.updateUser({ id: bound.user.id, displayName: "Ada", requestId });
  const { agentId, user } = bound;
  return {
    agentId,
    username: user.username,
    userId: user.id,
    claw,
    offlineId: offline.agentId,
    exhaustedId: exhausted.agentId,
    requestId,
  };
}

const READS: Record<string, Call> = {
  GetUser: ({ users }, { username }) => users.getUser({ key: { case: "username", value: username } }),
  ListUsers: ({ users }) => users.listUsers({ pageSize: 2 }),
  GetAgent: ({ agents }, { exhaustedId }) => agents.getAgent({ key: { case: "agentId", value: exhaustedId } }),
  BatchGetAgents: ({ agents }, { agentId, offlineId }) => agents.batchGetAgents({ agentIds: [offlineId, agentId] }),
  ListAgents: ({ agents }, { claw }) => agents.listAgents({ filter: { clawIdentifiers: [claw] }, pageSize: 2 }),
  GetFleet: async ({ agents }, { claw }) => {
    // The interval is jittered.
    const { nextHeartbeatIn: _, ...fleet } = await agents.getFleet({ filter: { clawIdentifiers: [claw] } });
    return fleet;
  },
  ListAgentTransitions: ({ agents }, { exhaustedId }) =>
    agents.listAgentTransitions({ agentId: exhaustedId, newestFirst: true, pageSize: 1 }),
  "ListAgentTransitions by filters": ({ agents }, { claw, exhaustedId }) =>
    agents.listAgentTransitions({
      agentId: exhaustedId,
      clawIdentifier: claw,
      causes: [TransitionCause.CREATED],
      since: { seconds: 1n },
    }),
  ListIncidents: ({ agents }) => agents.listIncidents({}),
  "Health.Check": ({ health }) => health.check({ service: "harborforge.agents.v1.AgentService" }),
  "Health.List": ({ health }) => health.list({}),
};

const REFUSALS: Record<string, Call> = {
  "no such user": ({ users }) => users.getUser({ key: { case: "username", value: "nobody 🚢" } }),
  "no such agent": ({ agents }) => agents.getAgent({ key: { case: "agentId", value: "nobody é\u200b" } }),
  "several agents missing": ({ agents }, { agentId }) => agents.batchGetAgents({ agentIds: ["a", agentId, "b"] }),
  "no key": ({ users }) => users.getUser({}),
  "many invalid fields": ({ agents }) =>
    agents.listAgents({ filter: { agentIds: Array.from({ length: 100 }, () => "") }, pageSize: -1 }),
  "an unknown status": ({ agents }) => agents.getFleet({ filter: { statuses: [99 as AgentStatus] } }),
  "an unknown cause": ({ agents }) => agents.listAgentTransitions({ causes: [99 as TransitionCause] }),
  "a moment before 1970": ({ agents }) => agents.listAgentTransitions({ since: { seconds: -1n } }),
  "a bad token of incidents": ({ agents }) => agents.listIncidents({ pageToken: "token" }),
  "a bad token": ({ agents }) => agents.listAgents({ pageToken: "token" }),
  "a revision that is gone": ({ agents }) => agents.listAgentTransitions({ afterRevision: 1n }),
  "a name that is taken": ({ users }, { username }) => users.createUser({ username }),
  "a request_id that is taken": ({ users }, { userId, requestId }) => users.updateUser({ id: userId, requestId }),
  "an agent_id that is taken": ({ agents }, { agentId, userId }) =>
    agents.createAgent({ userId, agentId, clawIdentifier: "claw" }),
  "a second agent": ({ agents }, { userId }) =>
    agents.createAgent({ userId, agentId: "another", clawIdentifier: "claw" }),
  "an offline agent": ({ agents }, { offlineId }) =>
    agents.updateAgentStatus({ agentId: offlineId, status: AgentStatus.BUSY }),
  "an exhausted agent": ({ agents }, { exhaustedId }) =>
    agents.updateAgentStatus({ agentId: exhaustedId, status: AgentStatus.BUSY }),
  "another revision": ({ agents }, { agentId }) =>
    agents.updateAgentStatus({ agentId, status: AgentStatus.BUSY, expectedRevision: 1n }),
  "too many beats": ({ agents }) =>
    agents.sendHeartbeat({ beats: Array.from({ length: 1_001 }, () => ({ agentId: "a" })) }),
  "too large a message": ({ agents }) => agents.moveAgent({ agentId: "x".repeat(1_048_577) }),
  "a watch from a revision that is gone": async (clients) => {
    await using watch = new Watch(clients, { afterRevision: 1n });
    await watch.end();
  },
  "a watch that cannot be": async (clients) => {
    await using watch = new Watch(clients, { afterRevision: -1n, bookmarkInterval: {} });
    await watch.end();
  },
  "an unknown service's health": ({ health }) => health.check({ service: "nobody's" }),
};

/** The same failure for a caller of JSON, who writes `pageSize` and not `page_size`. */
function spelledAsJson({ message, metadata, fields, ...failed }: Failure): Failure {
  const path = (text: string): string => text.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return {
    ...failed,
    message: message.replace(/(?<=^|; )[a-z][\w.[\]]*(?=: )/g, path),
    metadata: metadata?.field === undefined ? metadata : { ...metadata, field: path(metadata.field) },
    fields: fields.map(path),
  };
}

describe.concurrent.each(OTHERS)("$name gets the same responses as grpc-js", (protocol) => {
  const clients = useClients(protocol, service);
  const reference = useClients(GRPC_JS, service);

  async function both<Answer>(call: (clients: ProtocolClients, names: Names) => Promise<Answer>): Promise<Answer[]> {
    names ??= make(reference);
    const known = await names;
    return [await call(clients, known), await call(reference, known)];
  }

  test.each(Object.entries(READS))("to %s", async (_, read) => {
    const [one, other] = await both(read);
    expect(one).toEqual(other);
  });

  test.each(Object.entries(REFUSALS))("as an error: %s", async (_, call) => {
    const [one, other] = await both((own, known) => failure(call(own, known)));
    expect(one).toEqual(protocol.name.includes("JSON") ? spelledAsJson(present(other)) : other);
    expect(one).toMatchObject({ domain: "harborforge.agents", reason: expect.stringMatching(/^[A-Z][A-Z0-9_]+$/) });
  });

  test("in a watch", async () => {
    const [one, other] = await both(async (own, { claw }): Promise<Message[]> => {
      await using watch = new Watch(own, { filter: { clawIdentifiers: [claw] } });
      await watch.untilComplete();
      return watch.messages.flatMap(({ snapshotAgents }) => snapshotAgents);
    });
    expect(one).toHaveLength(3);
    expect(one).toEqual(other);
  });
});
