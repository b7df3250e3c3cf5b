import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { toRfc3339 } from "../../common/contract/time.ts";
import { microsOf } from "../../common/contract/timestamps.ts";
import { AgentStatus, ExhaustReason, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  expectAhead,
  expectInvalid,
  expectInvalidToken,
  expectRefusal,
  expectReusedRequestId,
  getAgent,
  newAgent,
  newUser,
  present,
  rateLimit,
  setStatus,
  tampered,
} from "../support/contract-steps.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { failure } from "../support/rpc-clients.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const { IDLE, ON_CALL, BUSY, EXHAUSTED, OFFLINE, UNSPECIFIED } = AgentStatus;
const DAY_S = 86_400n;

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const clients = useClients(protocol, service);
  const { agents } = clients;
  const update = (request: Parameters<typeof agents.updateAgentStatus>[0]) => agents.updateAgentStatus(request);
  const exhaust = async (agentId: string, exhaustion = rateLimit(3_600n)) =>
    present((await update({ agentId, status: EXHAUSTED, exhaustion })).agent);

  describe("UpdateAgentStatus", () => {
    test("changes an agent between working statuses, each a transition", async () => {
      const since = Date.now();
      const { agent, agentId } = await newAgent(clients);
      let { revision } = agent;
      for (const status of [BUSY, ON_CALL, IDLE]) {
        const { agent: changed } = await update({ agentId, status });
        expect(changed).toMatchObject({ status, id: agent.id });
        expect(changed?.revision).toBeGreaterThan(revision);
        expectAhead(changed?.statusChangedAt, 0, since);
        expect(await getAgent(clients, agentId)).toEqual(changed);
        revision = changed?.revision ?? 0n;
      }
    });

    test("changes nothing when the agent has that status already", async () => {
      const { agent, agentId } = await newAgent(clients);
      expect((await update({ agentId, status: IDLE })).agent).toEqual(agent);
    });

    test("puts an agent offline, which ends its lease; only its heartbeat brings it back", async () => {
      const { agentId } = await newAgent(clients);
      const { agent } = await update({ agentId, status: OFFLINE });
      expect(agent?.status).toBe(OFFLINE);
      expect(agent?.leaseExpiresAt).toBeUndefined();
      for (const status of [IDLE, ON_CALL, BUSY]) {
        await expectRefusal(update({ agentId, status }), Code.FailedPrecondition, "AGENT_OFFLINE");
      }
      expect(await getAgent(clients, agentId)).toEqual(agent);
      await agents.sendHeartbeat({ beats: [{ agentId }] });
      expect(await getAgent(clients, agentId)).toMatchObject({ status: IDLE });
    });

    test("sets an agent exhausted, and recovers it", async () => {
      const since = Date.now();
      const { agentId } = await newAgent(clients);
      const agent = await exhaust(agentId);
      expect(agent).toMatchObject({ status: EXHAUSTED, exhaustReason: ExhaustReason.RATE_LIMIT });
      expectAhead(agent.exhaustedAt, 0, since);
      expectAhead(agent.recoveryAt, 3_600_000, since);
      for (const status of [ON_CALL, BUSY]) {
        const failed = await failure(update({ agentId, status }));
        expect(failed).toMatchObject({ code: Code.FailedPrecondition, reason: "AGENT_EXHAUSTED", fields: [] });
        expect(Object.keys(failed.metadata ?? {})).toEqual(["recoveryAt"]);
        expect(failed.metadata?.recoveryAt).toBe(toRfc3339(microsOf(present(agent.recoveryAt))));
      }
      const recovered = present((await update({ agentId, status: IDLE })).agent);
      expect(recovered).toMatchObject({ status: IDLE, exhaustReason: ExhaustReason.UNSPECIFIED });
      expect([recovered.exhaustedAt, recovered.recoveryAt]).toEqual([undefined, undefined]);
    });

    test("keeps the provider's deadline to the microsecond", async () => {
      const { agentId } = await newAgent(clients);
      const recoveryAt = { ...timestampFromMs(Math.trunc(Date.now() / 1_000) * 1_000 + 90_000), nanos: 123_456_000 };
      const exhaustion = {
        reason: ExhaustReason.BILLING,
        recovery: { case: "recoveryAt", value: recoveryAt },
      } as const;
      const { agent } = await update({ agentId, status: EXHAUSTED, exhaustion });
      expect(agent?.recoveryAt).toEqual(recoveryAt);
      expect(agent?.exhaustReason).toBe(ExhaustReason.BILLING);
    });

    test.each([
      ["rate limit", ExhaustReason.RATE_LIMIT, 30_000],
      ["billing", ExhaustReason.BILLING, 600_000],
    ])("chooses a deadline when none is given, or a past one: %s", async (_, reason, firstMs) => {
      const past = { case: "recoveryAt", value: { seconds: 1n } } as const;
      const zero = { case: "retryAfter", value: {} } as const;
      for (const exhaustion of [{ reason }, { reason, recovery: past }, { reason, recovery: zero }]) {
        const { agentId } = await newAgent(clients);
        const { agent } = await update({ agentId, status: EXHAUSTED, exhaustion });
        const chosenMs = timestampMs(present(agent?.recoveryAt)) - timestampMs(present(agent?.exhaustedAt));
        expect(chosenMs).toBeGreaterThanOrEqual(0.9 * firstMs);
        expect(chosenMs).toBeLessThanOrEqual(1.1 * firstMs);
      }
    });

    test("keeps exhausted_at when reason or deadline change, and changes nothing when neither does", async () => {
      const { agentId } = await newAgent(clients);
      const first = await exhaust(agentId);
      expect(await exhaust(agentId, rateLimit(7_200n))).toEqual(first);
      const at = { case: "recoveryAt", value: timestampFromMs(Date.now() + 7_200_000) } as const;
      const later = await update({
        agentId,
        status: EXHAUSTED,
        exhaustion: { reason: ExhaustReason.RATE_LIMIT, recovery: at },
      });
      expect(later.agent).toMatchObject({ exhaustedAt: first.exhaustedAt, recoveryAt: at.value });
      const other = await update({ agentId, status: EXHAUSTED, exhaustion: { reason: ExhaustReason.BILLING } });
      expect(other.agent).toMatchObject({ exhaustedAt: first.exhaustedAt, exhaustReason: ExhaustReason.BILLING });
    });

    test("records the exhaustion of an offline agent, leaves it offline, and clears the exhaustion", async () => {
      const { agentId } = await newAgent(clients);
      await setStatus(clients, agentId, OFFLINE);
      expect(await exhaust(agentId)).toMatchObject({ status: OFFLINE, exhaustReason: ExhaustReason.RATE_LIMIT });
      const { agent } = await update({ agentId, status: IDLE });
      expect(agent).toMatchObject({ status: OFFLINE, exhaustReason: ExhaustReason.UNSPECIFIED });
      await expectRefusal(update({ agentId, status: IDLE }), Code.FailedPrecondition, "AGENT_OFFLINE");
    });

    test("keeps the exhaustion of an agent that it puts offline", async () => {
      const { agentId } = await newAgent(clients);
      const { recoveryAt, exhaustedAt } = await exhaust(agentId);
      expect(await setStatus(clients, agentId, OFFLINE)).toMatchObject({ status: OFFLINE, recoveryAt, exhaustedAt });
    });

    test("changes an agent only at the expected revision", async () => {
      const { agent, agentId } = await newAgent(clients);
      const { agent: busy } = await update({ agentId, status: BUSY, expectedRevision: agent.revision });
      const metadata = { revision: `${busy?.revision}` };
      const late = update({ agentId, status: IDLE, expectedRevision: agent.revision });
      await expectRefusal(late, Code.Aborted, "REVISION_MISMATCH", { metadata });
      // Also when it would change nothing.
      const same = update({ agentId, status: BUSY, expectedRevision: agent.revision });
      await expectRefusal(same, Code.Aborted, "REVISION_MISMATCH", { metadata });
      expect(await getAgent(clients, agentId)).toEqual(busy);
    });

    test("applies one of two requests with the same expected revision", async () => {
      const { agent, agentId } = await newAgent(clients);
      const outcomes = await Promise.allSettled(
        [BUSY, ON_CALL].map((status) => update({ agentId, status, expectedRevision: agent.revision })),
      );
      expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
      const lost = outcomes.find((outcome) => outcome.status === "rejected");
      const { revision } = await getAgent(clients, agentId);
      await expectRefusal(Promise.reject(lost?.reason), Code.Aborted, "REVISION_MISMATCH", {
        metadata: { revision: `${revision}` },
      });
    });

    test("does not reject a retry after a lost response as a lost race", async () => {
      const { agent, agentId } = await newAgent(clients);
      const requestId = unique("request");
      const request = { agentId, status: BUSY, expectedRevision: agent.revision, requestId };
      const first = await update(request);
      expect(await update(request)).toEqual(first);
      await setStatus(clients, agentId, ON_CALL);
      expect(await update(request)).toEqual(first);
      expect((await getAgent(clients, agentId)).status).toBe(ON_CALL);
      await expectReusedRequestId(update({ ...request, status: IDLE }), requestId);
      const { expectedRevision: _, ...unconditional } = request;
      await expectReusedRequestId(update(unconditional), requestId);
    });

    test("makes one change of two concurrent requests with one request_id", async () => {
      const { agentId } = await newAgent(clients);
      const request = { agentId, status: BUSY, requestId: unique("request") };
      const [one, two] = await Promise.all([update(request), update(request)]);
      expect(one).toEqual(two);
      const { transitions } = await agents.listAgentTransitions({ agentId });
      expect(transitions.map(({ cause }) => cause)).toEqual([TransitionCause.CREATED, TransitionCause.SERVICE]);
    });

    test("names every invalid field", async () => {
      const { agentId } = await newAgent(clients);
      await expectInvalid(
        update({ expectedRevision: -1n, requestId: "r".repeat(65) }),
        "agent_id",
        "status",
        "expected_revision",
        "request_id",
      );
      await expectInvalid(update({ agentId, status: UNSPECIFIED }), "status");
      await expectInvalid(update({ agentId, status: EXHAUSTED }), "exhaustion");
      await expectInvalid(update({ agentId, status: BUSY, exhaustion: rateLimit(1n) }), "exhaustion");
      await expectInvalid(update({ agentId, status: EXHAUSTED, exhaustion: {} }), "exhaustion.reason");
      await expectInvalid(update({ agentId, status: EXHAUSTED, exhaustion: rateLimit(-1n) }), "exhaustion.retry_after");
      const tooLong = rateLimit(366n * DAY_S + 1n);
      await expectInvalid(update({ agentId, status: EXHAUSTED, exhaustion: tooLong }), "exhaustion.retry_after");
      const tooFar = { case: "recoveryAt", value: timestampFromMs(Date.now() + 367 * 86_400_000) } as const;
      const far = { reason: ExhaustReason.BILLING, recovery: tooFar };
      await expectInvalid(update({ agentId, status: EXHAUSTED, exhaustion: far }), "exhaustion.recovery_at");
      expect((await exhaust(agentId, rateLimit(366n * DAY_S))).status).toBe(EXHAUSTED);
    });

    test("accepts a hold from 0 to 1 hour", async () => {
      const { agentId } = await newAgent(clients);
      await expectInvalid(update({ agentId, status: BUSY, hold: { nanos: -1 } }), "hold");
      await expectInvalid(update({ agentId, status: BUSY, hold: { seconds: 3_600n, nanos: 1 } }), "hold");
      await expectInvalid(update({ agentId, status: OFFLINE, hold: { seconds: 60n } }), "hold");
      expect((await update({ agentId, status: BUSY, hold: {} })).agent?.status).toBe(BUSY);
      expect((await update({ agentId, status: IDLE, hold: { seconds: 3_600n } })).agent?.status).toBe(IDLE);
    });

    test("rejects enum numbers outside the contract", async () => {
      const { agent, agentId } = await newAgent(clients);
      await expectInvalid(update({ agentId, status: 99 as AgentStatus }), "status");
      const exhaustion = { ...rateLimit(1n), reason: 99 as ExhaustReason };
      await expectInvalid(update({ agentId, status: EXHAUSTED, exhaustion }), "exhaustion.reason");
      expect(await getAgent(clients, agentId)).toEqual(agent);
    });

    test("rejects an unknown agent", async () => {
      const agentId = unique("agent");
      await expectRefusal(update({ agentId, status: BUSY }), Code.NotFound, "AGENT_NOT_FOUND", {
        metadata: { agentId },
      });
    });
  });

  describe("ListAgentTransitions", () => {
    async function eventful() {
      const bound = await newAgent(clients);
      const { agentId, agent, user, claw } = bound;
      const requestId = unique("request");
      const busy = present((await update({ agentId, status: BUSY, requestId })).agent);
      const exhausted = await exhaust(agentId);
      const moved = present((await agents.moveAgent({ agentId, clawIdentifier: `${claw}-2` })).agent);
      const { revision } = await agents.deleteAgent({ agentId });
      const revisions = [agent.revision, busy.revision, exhausted.revision, moved.revision, revision];
      return { ...bound, user, requestId, revisions, exhausted };
    }

    test("returns the history of an agent, also its deletion", async () => {
      const since = Date.now();
      const { agent, agentId, user, claw, requestId, revisions, exhausted } = await eventful();
      const { transitions, nextPageToken } = await agents.listAgentTransitions({ agentId });
      const common = { agentId, id: agent.id, userId: user.id, incidentId: "" };
      const here = { fromClawIdentifier: claw, toClawIdentifier: claw };
      const exhaustion = {
        reason: ExhaustReason.RATE_LIMIT,
        recovery: { case: "recoveryAt", value: exhausted.recoveryAt },
      };
      expect(nextPageToken).toBe("");
      expect(transitions).toMatchObject(
        [
          { cause: TransitionCause.CREATED, fromStatus: UNSPECIFIED, toStatus: IDLE, ...here, fromClawIdentifier: "" },
          { cause: TransitionCause.SERVICE, fromStatus: IDLE, toStatus: BUSY, ...here, requestId },
          { cause: TransitionCause.SERVICE, fromStatus: BUSY, toStatus: EXHAUSTED, ...here, exhaustion },
          {
            cause: TransitionCause.MOVED,
            fromStatus: EXHAUSTED,
            toStatus: EXHAUSTED,
            exhaustion,
            fromClawIdentifier: claw,
            toClawIdentifier: `${claw}-2`,
          },
          {
            cause: TransitionCause.DELETED,
            fromStatus: EXHAUSTED,
            toStatus: UNSPECIFIED,
            fromClawIdentifier: `${claw}-2`,
            toClawIdentifier: "",
          },
        ].map((transition, index) => ({ requestId: "", ...common, ...transition, revision: revisions[index] })),
      );
      for (const { actor, occurredAt } of transitions) {
        expect(actor).toMatch(/^service:/);
        expectAhead(occurredAt, 0, since);
      }
      expect(transitions[0]?.exhaustion).toBeUndefined();
    });

    test.each([false, true])("pages, newest first: %s", async (newestFirst) => {
      const { agentId, revisions } = await eventful();
      const expected = newestFirst ? revisions.toReversed() : revisions;
      const seen: bigint[] = [];
      let pageToken = "";
      for (const pageSize of [2, 1, 2]) {
        const page = await agents.listAgentTransitions({ agentId, newestFirst, pageSize, pageToken });
        expect(page.transitions).toHaveLength(pageSize);
        seen.push(...page.transitions.map(({ revision }) => revision));
        pageToken = page.nextPageToken;
      }
      expect(seen).toEqual(expected);
      expect(pageToken).toBe("");
    });

    test.each([false, true])("starts after a revision, newest first: %s", async (newestFirst) => {
      const { agentId, revisions } = await eventful();
      const { transitions } = await agents.listAgentTransitions({
        agentId,
        newestFirst,
        afterRevision: present(revisions[2]),
      });
      const after = revisions.slice(3);
      expect(transitions.map(({ revision }) => revision)).toEqual(newestFirst ? after.reverse() : after);
    });

    test("returns transitions of all agents, in the order of revisions", async () => {
      const before = await newAgent(clients);
      const [one, two] = [await newAgent(clients), await newAgent(clients)];
      const change = await setStatus(clients, one.agentId, BUSY);
      const afterRevision = before.agent.revision;
      const { transitions } = await agents.listAgentTransitions({ afterRevision, pageSize: 1_000 });
      const revisions = transitions.map(({ revision }) => revision);
      expect(revisions).toEqual(revisions.toSorted((a, b) => (a < b ? -1 : 1)));
      expect(revisions.every((revision) => revision > afterRevision)).toBe(true);
      const ours = transitions.filter(({ agentId }) => [one.agentId, two.agentId].includes(agentId));
      expect(ours.map(({ revision }) => revision)).toEqual([one.agent.revision, two.agent.revision, change.revision]);
    });

    test("selects by causes, claw, and instant", async () => {
      const { agentId, claw, revisions } = await eventful();
      const { transitions } = await agents.listAgentTransitions({ agentId });
      const revisionsOf = async (request: Parameters<typeof agents.listAgentTransitions>[0]) =>
        (await agents.listAgentTransitions(request)).transitions.map(({ revision }) => revision);
      const causes = [TransitionCause.MOVED, TransitionCause.CREATED];
      expect(await revisionsOf({ agentId, causes })).toEqual([revisions[0], revisions[3]]);
      expect(await revisionsOf({ clawIdentifier: claw })).toEqual(revisions.slice(0, 4));
      expect(await revisionsOf({ clawIdentifier: claw, causes, newestFirst: true })).toEqual([
        revisions[3],
        revisions[0],
      ]);
      expect(await revisionsOf({ clawIdentifier: `${claw}-2` })).toEqual(revisions.slice(3));
      const since = present(transitions[2]?.occurredAt);
      expect(await revisionsOf({ agentId, since })).toEqual(revisions.slice(2));
      expect(await revisionsOf({ since: { seconds: since.seconds + 86_400n } })).toEqual([]);
      expect(await revisionsOf({ incidentId: "none" })).toEqual([]);
    });

    test("returns nothing of an agent that never existed", async () => {
      const { transitions, nextPageToken } = await agents.listAgentTransitions({ agentId: unique("agent") });
      expect([transitions, nextPageToken]).toEqual([[], ""]);
    });

    test("keeps an agent_id's older agents in its history", async () => {
      const { agent, agentId } = await newAgent(clients);
      await agents.deleteAgent({ agentId });
      const user = await newUser(clients);
      const again = await agents.createAgent({ userId: user.id, agentId, clawIdentifier: "claw" });
      const { transitions } = await agents.listAgentTransitions({ agentId });
      expect(transitions.map(({ id }) => id)).toEqual([agent.id, agent.id, again.agent?.id]);
    });

    test("rejects compacted revisions, and future ones", async () => {
      const [counter] = await service().query<{ oldest: string }>("SELECT oldest FROM revision_counter");
      const metadata = { oldestRevision: present(counter).oldest };
      const gone = agents.listAgentTransitions({ afterRevision: 1n });
      await expectRefusal(gone, Code.OutOfRange, "REVISION_COMPACTED", { metadata });
      const failed = await failure(agents.listAgentTransitions({ afterRevision: 2n ** 62n }));
      expect(failed).toMatchObject({ code: Code.OutOfRange, reason: "REVISION_IN_FUTURE" });
    });

    test("rejects tokens of other requests, and invalid fields", async () => {
      const { agentId } = await eventful();
      const { nextPageToken: pageToken } = await agents.listAgentTransitions({ agentId, pageSize: 1 });
      await expectInvalidToken(agents.listAgentTransitions({ agentId, newestFirst: true, pageToken }));
      await expectInvalidToken(agents.listAgentTransitions({ pageToken }));
      await expectInvalidToken(agents.listAgentTransitions({ agentId: unique("agent"), pageToken }));
      await expectInvalidToken(agents.listAgentTransitions({ agentId, afterRevision: 1n, pageToken }));
      await expectInvalidToken(agents.listAgentTransitions({ agentId, pageToken: tampered(pageToken) }));
      await expectInvalidToken(agents.listAgents({ pageToken }));
      await expectInvalidToken(agents.listAgentTransitions({ agentId, causes: [TransitionCause.CREATED], pageToken }));
      const invalid = { agentId: "", afterRevision: -1n, pageSize: -1 };
      await expectInvalid(agents.listAgentTransitions(invalid), "agent_id", "after_revision", "page_size");
      const filters = {
        causes: [99 as TransitionCause],
        clawIdentifier: "\n",
        since: { seconds: -1n },
        incidentId: "",
      };
      await expectInvalid(agents.listAgentTransitions(filters), "causes[0]", "claw_identifier", "since", "incident_id");
    });
  });

  describe("ListIncidents", () => {
    test("returns the incidents of a claw with their agents, in pages", async () => {
      const claw = unique("claw");
      const { agentId, agent } = await newAgent(clients);
      // As a silent claw leaves them.
      await service().query(
        `INSERT INTO incidents (incident_id, claw_identifier, since, after_revision, last_heartbeat)
         SELECT $1 || n, $1, clock_timestamp(), $2, clock_timestamp() FROM generate_series(1, 3) n`,
        claw,
        agent.revision.toString(),
      );
      await agents.updateAgentStatus({ agentId, status: OFFLINE });
      await service().query(
        "UPDATE agent_transitions SET incident_id = $1 || '3' WHERE agent_id = $2 AND to_status = 'offline'",
        claw,
        agentId,
      );
      const first = await agents.listIncidents({ clawIdentifier: claw, pageSize: 2 });
      expect(first.incidents).toMatchObject([
        { incidentId: `${claw}3`, clawIdentifiers: [claw], agents: 1n, agentsBack: 0n },
        { incidentId: `${claw}2`, agents: 0n },
      ]);
      expect(first.incidents[0]?.endedAt).toBeUndefined();
      expect(first.incidents[0]?.since).toBeDefined();
      const { nextPageToken: pageToken } = first;
      const second = await agents.listIncidents({ clawIdentifier: claw, pageToken });
      expect(second).toMatchObject({ incidents: [{ incidentId: `${claw}1` }], nextPageToken: "" });
      const transitions = (await agents.listAgentTransitions({ incidentId: `${claw}3` })).transitions;
      expect(transitions).toMatchObject([{ agentId, toStatus: OFFLINE, incidentId: `${claw}3` }]);
      await expectInvalidToken(agents.listIncidents({ pageToken }));
      await expectInvalid(agents.listIncidents({ clawIdentifier: "", pageSize: -1 }), "claw_identifier", "page_size");
    });
  });
});
