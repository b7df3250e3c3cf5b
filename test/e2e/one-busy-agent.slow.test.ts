import { expect, test } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { getAgent, newAgent, present } from "../support/contract-steps.ts";
import { HeartbeatStream } from "../support/contract-streams.ts";
import { RowLocks } from "../support/gate-locks.ts";
import { GRPC_JS, openClients, PROTOCOLS } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";
import { until } from "../support/until.ts";

const { BUSY, ON_CALL } = AgentStatus;
/** Many times the queue limit, and the size of one page of the log. */
const CALLS = 3_000;
const HTTP2 = present(PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2"));

const service = useService();

test.for([
  GRPC_JS,
  HTTP2,
])("with thousands of changes of one agent, and a disconnect, its stream waits for one of them ($name)", {
  timeout: 60_000,
}, async (protocol) => {
  await using undo = new AsyncDisposableStack();
  const locks = undo.use(await RowLocks.open(service().databaseUrl));
  undo.defer(() => locks.rollback());
  const claw = undo.use(openClients(GRPC_JS, service().addresses));
  const { agentId, agent } = await newAgent(claw);
  // The locks of the test before may have isolated the replica for a moment.
  await until("the replica serves", async () => (await fetch(`http://${service().addresses.http}/readyz`)).ok);
  const stream = undo.use(new HeartbeatStream(claw));
  await stream.beat({ beats: [{ agentId }] });
  const neighbour = await newAgent(claw);

  const crowd = openClients(protocol, service().addresses);
  await locks.takeCounter();
  const calls = Array.from({ length: CALLS }, (_, place) =>
    failure(
      crowd.agents.updateAgentStatus({
        agentId,
        status: place % 2 === 0 ? BUSY : ON_CALL,
        hold: { seconds: 0n },
        requestId: unique("change"),
      }),
    ).catch(() => undefined),
  );
  await locks.waiting("commit-changes");
  await crowd.health.check({});
  crowd[Symbol.dispose]();
  const outcomes = await Promise.all(calls);
  await until("the calls have ended here, too", async () => (await waitingChanges()) <= 64);
  const acknowledged = stream.beat({ beats: [{ agentId, status: ON_CALL }] });
  await locks.commit();
  await acknowledged;

  const after = await claw.agents.listAgentTransitions({ agentId, afterRevision: agent.revision, pageSize: 1_000 });
  // At most the one that was under way when its caller disconnected, and then the report.
  const causes = after.transitions.map(({ cause }) => cause);
  expect(causes.at(-1)).toBe(TransitionCause.REPORT);
  expect(causes.length).toBeLessThanOrEqual(2);
  // Of the calls that were answered before the disconnect, all but some tens were rejected.
  const refusals = outcomes.flatMap((outcome) => (outcome?.reason === "LIMIT_EXCEEDED" ? [outcome] : []));
  for (const refusal of refusals) {
    expect(refusal).toMatchObject({ metadata: { limit: "changesPerAgent", agentId }, retryMs: expect.any(Number) });
  }
  expect((await getAgent(claw, neighbour.agentId)).agentId).toBe(neighbour.agentId);
});

async function waitingChanges(): Promise<number> {
  const page = await fetch(`http://${service().addresses.http}/metrics`);
  return Number(/^harborforge_changes_waiting (\d+)$/m.exec(await page.text())?.[1]);
}
