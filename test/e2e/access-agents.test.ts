import { isMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentChangeType,
  type WatchAgentsRequestSchema,
  WatchAgentsResponseSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import type { Grant } from "../../src/domain/principal.ts";
import { CREDENTIALS, forAgents, forClaw, openMint } from "../support/access.ts";
import { type Bound, expectRefusal, newAgent, present } from "../support/contract-steps.ts";
import { FleetWatch } from "../support/contract-streams.ts";
import { HeartbeatClient } from "../support/heartbeat-client.ts";
import { GRPC_JS, openClients, PROTOCOLS, type ProtocolClients } from "../support/protocol-clients.ts";
import { failureOf } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";
import { until } from "../support/until.ts";

const service = useService({ access: CREDENTIALS });

const CONNECT = PROTOCOLS.find(({ name }) => name === "Connect JSON over HTTP/2") ?? GRPC_JS;

interface Scene extends AsyncDisposable {
  readonly admin: ProtocolClients;
  /** Two agents of one claw, and one of another. */
  readonly mine: Bound;
  readonly neighbour: Bound;
  readonly stranger: Bound;
  bearing(grant: Grant): Promise<ProtocolClients>;
}

async function openScene(protocol: typeof GRPC_JS): Promise<Scene> {
  const undo = new AsyncDisposableStack();
  const mint = undo.use(openMint(service().databaseUrl));
  const bearing = async (grant: Grant): Promise<ProtocolClients> =>
    undo.use(openClients(protocol, service().addresses, (await mint.issue(grant)).secret));
  const admin = await bearing({ role: "admin" });
  const claw = unique("claw");
  const [mine, neighbour, stranger] = [await newAgent(admin, claw), await newAgent(admin, claw), await newAgent(admin)];
  return { admin, mine, neighbour, stranger, bearing, [Symbol.asyncDispose]: () => undo.disposeAsync() };
}

const byAgent = (agentId: string) => ({ key: { case: "agentId", value: agentId } }) as const;
const byUser = (userId: bigint) => ({ key: { case: "userId", value: userId } }) as const;

async function expectDenied(call: Promise<unknown>, metadata: Record<string, string>): Promise<void> {
  await expectRefusal(call, Code.PermissionDenied, "PERMISSION_DENIED", { metadata });
}

describe.concurrent.each([GRPC_JS, CONNECT])("$name", (protocol) => {
  describe("a credential for named agents", () => {
    test("reads them, and does not learn whether others exist", async () => {
      await using scene = await openScene(protocol);
      const { mine, neighbour } = scene;
      const unborn = unique("unborn");
      const { agents } = await scene.bearing(forAgents(mine.agentId, unborn));
      expect((await agents.getAgent(byAgent(mine.agentId))).agent?.agentId).toBe(mine.agentId);
      expect((await agents.getAgent(byUser(mine.user.id))).agent?.agentId).toBe(mine.agentId);
      expect((await agents.batchGetAgents({ agentIds: [mine.agentId] })).agents).toHaveLength(1);
      // Its own agent may be missing.
      await expectRefusal(agents.getAgent(byAgent(unborn)), Code.NotFound, "AGENT_NOT_FOUND", {
        metadata: { agentId: unborn },
      });
      for (const agentId of [neighbour.agentId, unique("nobody")]) {
        await expectDenied(agents.getAgent(byAgent(agentId)), { agentId });
        await expectDenied(agents.batchGetAgents({ agentIds: [mine.agentId, agentId] }), { agentId });
        await expectDenied(agents.listAgentTransitions({ agentId }), { agentId });
      }
      for (const userId of [neighbour.user.id, 999_999_999n]) {
        await expectDenied(agents.getAgent(byUser(userId)), { userId: userId.toString() });
      }
    });

    test("lists, counts and reads the log of these agents alone", async () => {
      await using scene = await openScene(protocol);
      const { mine, neighbour, stranger } = scene;
      const { agents } = await scene.bearing(forAgents(mine.agentId, stranger.agentId));
      const listed = async (filter: { agentIds?: string[]; clawIdentifiers?: string[] }) =>
        (await agents.listAgents({ filter })).agents.map(({ agentId }) => agentId);
      expect((await listed({})).sort()).toEqual([mine.agentId, stranger.agentId].sort());
      expect(await listed({ agentIds: [mine.agentId, neighbour.agentId] })).toEqual([mine.agentId]);
      expect(await listed({ agentIds: [neighbour.agentId] })).toEqual([]);
      expect(await listed({ clawIdentifiers: [mine.claw] })).toEqual([mine.agentId]);
      const fleet = await agents.getFleet({});
      expect(fleet.statuses).toMatchObject([{ status: AgentStatus.IDLE, count: 2n }]);
      expect(fleet.claws.map(({ clawIdentifier }) => clawIdentifier).sort()).toEqual([mine.claw, stranger.claw].sort());
      expect(fleet.brake).toBeUndefined();
      await using watch = new FleetWatch({ agents }, {});
      await watch.untilComplete();
      expect(watch.all).toEqual([[AgentStatus.IDLE, 2n]]);
      expect([...watch.claws.keys()].sort()).toEqual([mine.claw, stranger.claw].sort());
      expect(watch.messages.every(({ brake }) => brake === undefined)).toBe(true);
      const { transitions } = await agents.listAgentTransitions({});
      expect(transitions.map(({ agentId }) => agentId).sort()).toEqual([mine.agentId, stranger.agentId].sort());
    });

    test("watches these agents alone, from its snapshot on", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, neighbour } = scene;
      const { agents } = await scene.bearing(forAgents(mine.agentId));
      const seen: string[] = [];
      const stop = new AbortController();
      const watching = (async () => {
        for await (const message of agents.watchAgents(
          { bookmarkInterval: { seconds: 1n } },
          { signal: stop.signal },
        )) {
          for (const { agentId } of message.snapshotAgents) seen.push(`snapshot ${agentId}`);
          for (const { agent, type } of message.changes)
            seen.push(`${type === AgentChangeType.UPDATED ? "updated" : type} ${agent?.agentId}`);
          if (message.bookmark?.snapshotComplete) seen.push("complete");
        }
      })().catch(() => undefined);
      await until("the snapshot is complete", () => seen.includes("complete"));
      await admin.agents.updateAgentStatus({ agentId: neighbour.agentId, status: AgentStatus.BUSY });
      await admin.agents.updateAgentStatus({ agentId: mine.agentId, status: AgentStatus.BUSY });
      await until("the own change is told", () => seen.includes(`updated ${mine.agentId}`));
      stop.abort();
      await watching;
      expect(seen).toEqual([`snapshot ${mine.agentId}`, "complete", `updated ${mine.agentId}`]);
    });

    test("sends beats for them; a beat for another agent fails alone, whether the agent exists or not", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, neighbour } = scene;
      const nobody = unique("nobody");
      const { agents } = await scene.bearing(forAgents(mine.agentId));
      const busy = AgentStatus.BUSY;
      const beats = [neighbour.agentId, mine.agentId, nobody].map((agentId) => ({ agentId, status: busy }));
      const { results } = await agents.sendHeartbeat({ beats });
      await using stream = new HeartbeatClient(agents, { clawIdentifier: mine.claw, instanceId: "one" });
      for (const answers of [results, await stream.say(...beats)]) {
        const errors = new Map(answers.map(({ agentId, error }) => [agentId, error]));
        expect(errors.get(mine.agentId)).toBeUndefined();
        for (const agentId of [neighbour.agentId, nobody]) {
          expect(errors.get(agentId)).toMatchObject({
            code: Code.PermissionDenied,
            reason: ErrorReason.PERMISSION_DENIED,
          });
        }
      }
      expect(stream.ended).toBeUndefined();
      expect(await admin.agents.getAgent(byAgent(neighbour.agentId))).toMatchObject({
        agent: { status: AgentStatus.IDLE },
      });
      expect(await agents.getAgent(byAgent(mine.agentId))).toMatchObject({ agent: { status: busy } });
    });
  });

  describe("a credential for a claw", () => {
    test("reads the agents of the claw, and does not learn whether others exist", async () => {
      await using scene = await openScene(protocol);
      const { mine, neighbour, stranger } = scene;
      const { agents } = await scene.bearing(forClaw(mine.claw));
      const both = [mine.agentId, neighbour.agentId];
      expect((await agents.getAgent(byAgent(mine.agentId))).agent?.agentId).toBe(mine.agentId);
      expect((await agents.batchGetAgents({ agentIds: both })).agents.map(({ agentId }) => agentId)).toEqual(both);
      expect((await agents.listAgents({})).agents.map(({ agentId }) => agentId)).toEqual(both);
      expect((await agents.getFleet({})).claws).toMatchObject([{ clawIdentifier: mine.claw }]);
      await using watch = new FleetWatch({ agents }, {});
      await watch.untilComplete();
      expect([...watch.claws.keys()]).toEqual([mine.claw]);
      expect((await agents.listAgents({ filter: { clawIdentifiers: [stranger.claw] } })).agents).toEqual([]);
      const { transitions } = await agents.listAgentTransitions({});
      expect(transitions.map(({ agentId }) => agentId)).toEqual(both);
      for (const agentId of [stranger.agentId, unique("nobody")]) {
        await expectDenied(agents.getAgent(byAgent(agentId)), { agentId });
        await expectDenied(agents.batchGetAgents({ agentIds: [agentId, unique("another")] }), { agentId });
        expect((await agents.listAgentTransitions({ agentId })).transitions).toEqual([]);
      }
      for (const userId of [stranger.user.id, 999_999_999n]) {
        await expectDenied(agents.getAgent(byUser(userId)), { userId: userId.toString() });
      }
    });

    test("learns by no filter that an agent of its claw came from another claw", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, stranger } = scene;
      await admin.agents.moveAgent({ agentId: stranger.agentId, clawIdentifier: mine.claw });
      const { agents } = await scene.bearing(forClaw(mine.claw));
      const moved = await agents.listAgentTransitions({ clawIdentifier: mine.claw, causes: [TransitionCause.MOVED] });
      expect(moved.transitions).toMatchObject([{ agentId: stranger.agentId, fromClawIdentifier: "" }]);
      for (const agentId of [undefined, stranger.agentId]) {
        const request = { clawIdentifier: stranger.claw, ...(agentId === undefined ? {} : { agentId }) };
        expect((await agents.listAgentTransitions(request)).transitions).toEqual([]);
      }
      expect((await agents.listIncidents({ clawIdentifier: stranger.claw })).incidents).toEqual([]);
    });

    test("reads the log of its agents in pages, in both directions", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, neighbour, stranger } = scene;
      for (const status of [AgentStatus.BUSY, AgentStatus.IDLE, AgentStatus.ON_CALL]) {
        for (const { agentId } of [mine, stranger, neighbour])
          await admin.agents.updateAgentStatus({ agentId, status });
      }
      const readers = [forClaw(mine.claw), forAgents(mine.agentId, neighbour.agentId)];
      for (const { agents } of await Promise.all(readers.map((grant) => scene.bearing(grant)))) {
        const all = (await agents.listAgentTransitions({})).transitions.map(({ revision }) => revision);
        expect(all).toHaveLength(8);
        expect(all).toEqual([...all].sort((one, other) => Number(one - other)));
        for (const newestFirst of [false, true]) {
          const paged: bigint[] = [];
          for (let pageToken = "", more = true; more; ) {
            const page = await agents.listAgentTransitions({ pageSize: 3, pageToken, newestFirst });
            paged.push(...page.transitions.map(({ revision }) => revision));
            pageToken = page.nextPageToken;
            more = pageToken !== "";
          }
          expect(paged).toEqual(newestFirst ? all.toReversed() : all);
        }
      }
    });

    test("sends beats for the agents of the claw, not for others, and acts as no other claw", async () => {
      await using scene = await openScene(protocol);
      const { mine, stranger } = scene;
      const { agents } = await scene.bearing(forClaw(mine.claw));
      const nobody = unique("nobody");
      const beats = [stranger.agentId, mine.agentId, nobody].map((agentId) => ({ agentId }));
      const { results } = await agents.sendHeartbeat({ beats });
      await using stream = new HeartbeatClient(agents);
      const streamed = await stream.say(...beats);
      for (const answers of [results, streamed]) {
        const errors = new Map(
          answers.map(({ agentId, error }) => [
            agentId,
            error && { ...error, message: error.message.replaceAll(agentId, "…") },
          ]),
        );
        expect(errors.get(mine.agentId)).toBeUndefined();
        // The two responses are the same but for the name, which the caller has sent.
        expect(errors.get(stranger.agentId)).toEqual(errors.get(nobody));
        expect(errors.get(nobody)).toMatchObject({
          code: Code.PermissionDenied,
          reason: ErrorReason.PERMISSION_DENIED,
        });
      }
      await expectDenied(agents.sendHeartbeat({ beats: [], clawIdentifier: stranger.claw }), {
        clawIdentifier: stranger.claw,
      });
      await using other = new HeartbeatClient(agents, { clawIdentifier: stranger.claw });
      other.send({ agentId: stranger.agentId });
      const ended = await other.untilEnded();
      expect(ended instanceof ConnectError && failureOf(ended).reason).toBe("PERMISSION_DENIED");
    });

    test("loses access at once to agents that move away during its stream, and gains access to new ones", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, stranger } = scene;
      const { agents } = await scene.bearing(forClaw(mine.claw));
      await using stream = new HeartbeatClient(agents);
      await stream.say({ agentId: mine.agentId, status: AgentStatus.BUSY });
      await admin.agents.moveAgent({ agentId: mine.agentId, clawIdentifier: stranger.claw });
      const [refused] = await stream.say({ agentId: mine.agentId, status: AgentStatus.IDLE });
      expect(refused?.error).toMatchObject({ reason: ErrorReason.PERMISSION_DENIED });
      // The stream does not learn the new claw, also not by a pushed change.
      for (const { agentId, error } of stream.results) {
        if (agentId === mine.agentId && error !== undefined) expect(error.reason).toBe(ErrorReason.PERMISSION_DENIED);
      }
      const { results } = await agents.sendHeartbeat({ beats: [{ agentId: mine.agentId, status: AgentStatus.IDLE }] });
      expect(results[0]?.error).toMatchObject({ reason: ErrorReason.PERMISSION_DENIED });
      await expectDenied(agents.getAgent(byAgent(mine.agentId)), { agentId: mine.agentId });
      expect(present((await admin.agents.getAgent(byAgent(mine.agentId))).agent).status).toBe(AgentStatus.BUSY);
      await admin.agents.moveAgent({ agentId: stranger.agentId, clawIdentifier: mine.claw });
      const [taken] = await stream.say({ agentId: stranger.agentId, status: AgentStatus.BUSY });
      expect(taken).toMatchObject({ agentId: stranger.agentId, status: AgentStatus.BUSY });
      expect(taken?.error).toBeUndefined();
      // This claw may not read the history of the new agent at its former claw.
      const { transitions } = await agents.listAgentTransitions({ agentId: stranger.agentId });
      expect(transitions.every((one) => [one.fromClawIdentifier, one.toClawIdentifier].includes(mine.claw))).toBe(true);
    });

    test("never learns the name of the claw that an agent moves to, or comes from", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, neighbour, stranger } = scene;
      const elsewhere = stranger.claw;
      const { agents } = await scene.bearing(forClaw(mine.claw));
      const told: unknown[] = [];
      const note = <T>(answer: T): T => {
        told.push(answer);
        return answer;
      };
      const { revision } = await agents.listAgents({});
      const stop = new AbortController();
      const read = async (request: MessageInitShape<typeof WatchAgentsRequestSchema>, until: bigint) => {
        for await (const message of agents.watchAgents(request, { signal: stop.signal })) {
          note(message);
          if (until > 0n && message.revision >= until) return;
        }
      };
      const watching = [{}, { conflate: true }, { filter: { agentIds: [mine.agentId, stranger.agentId] } }].map(
        (request) => read({ ...request, bookmarkInterval: { seconds: 1n } }, 0n).catch(() => undefined),
      );
      await until("the watches stand", () => told.length >= watching.length);
      await using stream = new HeartbeatClient(agents, { clawIdentifier: mine.claw, instanceId: "one" });
      await stream.say({ agentId: mine.agentId }, { agentId: neighbour.agentId });

      await admin.agents.moveAgent({ agentId: mine.agentId, clawIdentifier: elsewhere });
      await stream.say({ agentId: mine.agentId, status: AgentStatus.BUSY });
      note(await agents.sendHeartbeat({ beats: [{ agentId: mine.agentId }], clawIdentifier: mine.claw }));
      await admin.agents.moveAgent({ agentId: stranger.agentId, clawIdentifier: mine.claw });
      await stream.say({ agentId: stranger.agentId });
      // There and back, which a conflating watch may merge.
      await admin.agents.moveAgent({ agentId: neighbour.agentId, clawIdentifier: elsewhere });
      const { agent } = await admin.agents.moveAgent({ agentId: neighbour.agentId, clawIdentifier: mine.claw });
      const last = present(agent).revision;
      note(await agents.listAgents({}));
      note(await agents.getFleet({}));
      for (const newestFirst of [false, true]) {
        note(await agents.listAgentTransitions({ newestFirst }));
        for (const { agentId } of [mine, stranger, neighbour]) {
          const { transitions } = note(await agents.listAgentTransitions({ agentId, newestFirst }));
          // The watch reports that it entered or left.
          expect(transitions.some(({ cause }) => cause === TransitionCause.MOVED)).toBe(true);
        }
      }
      for (const conflate of [false, true]) await read({ afterRevision: revision, conflate }, last);
      const failures = await Promise.allSettled([
        agents.getAgent(byAgent(mine.agentId)),
        agents.getAgent(byUser(mine.user.id)),
        agents.batchGetAgents({ agentIds: [mine.agentId, neighbour.agentId] }),
        agents.moveAgent({ agentId: mine.agentId, clawIdentifier: mine.claw }),
      ]);
      for (const failure of failures) {
        if (failure.status === "fulfilled") throw new Error("not refused");
        const { rawMessage, details, metadata } = ConnectError.from(failure.reason);
        note([rawMessage, details, failureOf(ConnectError.from(failure.reason)), [...metadata]]);
      }
      await until("the watches tell of all", () => {
        const changes = told.filter((one) => isMessage(one, WatchAgentsResponseSchema)).flatMap((one) => one.changes);
        return changes.filter(({ transition }) => transition?.revision === last).length === watching.length + 1;
      });
      stop.abort();
      await Promise.all(watching);
      note(stream.responses);

      const said = JSON.stringify(told, (_, value) => (typeof value === "bigint" ? value.toString() : value));
      expect(said).toContain(mine.claw);
      expect(said).not.toContain(elsewhere);
      // A caller without such a scope reads the names.
      const { transitions } = await admin.agents.listAgentTransitions({ agentId: mine.agentId, newestFirst: true });
      expect(transitions[0]).toMatchObject({ fromClawIdentifier: mine.claw, toClawIdentifier: elsewhere });
    });

    test("gets the move of an agent that leaves, and none of its later changes", async () => {
      await using scene = await openScene(protocol);
      const { admin, mine, neighbour, stranger } = scene;
      const { agents } = await scene.bearing(forClaw(mine.claw));
      await using stream = new HeartbeatClient(agents);
      await stream.say({ agentId: mine.agentId }, { agentId: neighbour.agentId });
      const told = (agentId: string) => stream.results.filter((one) => one.agentId === agentId && one.sequence === 0n);
      await admin.agents.moveAgent({ agentId: mine.agentId, clawIdentifier: stranger.claw });
      await until("the stream hears of the move", () => told(mine.agentId).length > 0);
      await using there = new HeartbeatClient((await scene.bearing(forClaw(stranger.claw))).agents);
      await there.say({ agentId: mine.agentId, status: AgentStatus.ON_CALL });
      await admin.agents.moveAgent({ agentId: mine.agentId, clawIdentifier: unique("claw") });
      await admin.agents.deleteAgent({ agentId: mine.agentId });
      // In the order of the changes.
      await admin.agents.deleteAgent({ agentId: neighbour.agentId });
      await until("the stream hears of its own agent's end", () => told(neighbour.agentId).length > 0);
      expect(told(neighbour.agentId)[0]?.error?.reason).toBe(ErrorReason.AGENT_NOT_FOUND);
      expect(told(mine.agentId).map(({ error }) => error?.reason)).toEqual([ErrorReason.PERMISSION_DENIED]);
    });
  });

  test("changes record the authenticated principal, whatever else the request contains", async () => {
    await using scene = await openScene(protocol);
    const { admin, mine } = scene;
    await using mint = openMint(service().databaseUrl);
    const { secret, token } = await mint.issue({ role: "service" });
    using clients = openClients(protocol, service().addresses, secret);
    const headers = { "x-actor": "user:mallory", actor: "user:mallory" };
    await clients.agents.updateAgentStatus({ agentId: mine.agentId, status: AgentStatus.BUSY }, { headers });
    const { transitions } = await admin.agents.listAgentTransitions({ agentId: mine.agentId, newestFirst: true });
    expect(transitions[0]?.actor).toBe(`service:${token.principal}`);
    expect(transitions[1]?.actor).toMatch(/^user:admin-/);
  });
});
