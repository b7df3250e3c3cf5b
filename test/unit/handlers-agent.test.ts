import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  AgentStatus,
  ExhaustionSchema,
  ExhaustReason,
  TransitionCause,
} from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentBeatSchema,
  type AgentFilterSchema,
  type UpdateAgentStatusRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { Incident } from "../../src/domain/directories.ts";
import { createFakeBackend, FAKE_NOW } from "../support/fake-backend.ts";
import { createInMemoryClients, refusalOf } from "../support/in-memory-clients.ts";

function start() {
  const backend = createFakeBackend();
  return { backend, ...createInMemoryClients(backend) };
}

/** Numbers outside the contract, from a newer client or an invalid one. */
const UNKNOWN_STATUS = fromBinary(AgentBeatSchema, Uint8Array.of(0x10, 99)).status;
const UNKNOWN_REASON = fromBinary(ExhaustionSchema, Uint8Array.of(0x08, 99)).reason;

const SECONDS = (seconds: number) => ({ seconds: BigInt(seconds) });

describe("CreateAgent, GetAgent, MoveAgent, DeleteAgent", () => {
  it("create, find by both keys, move and delete", async () => {
    const { agents } = start();
    const { agent } = await agents.createAgent({ userId: 7n, agentId: "scribe", clawIdentifier: "claw-1" });
    expect(agent).toMatchObject({ agentId: "scribe", userId: 7n, status: AgentStatus.IDLE, revision: 1n });
    for (const key of [
      { case: "agentId" as const, value: "scribe" },
      { case: "userId" as const, value: 7n },
    ]) {
      expect((await agents.getAgent({ key })).agent).toEqual(agent);
    }
    const moved = await agents.moveAgent({ agentId: "scribe", clawIdentifier: "claw-2" });
    expect(moved.agent).toMatchObject({ clawIdentifier: "claw-2", revision: 2n });
    expect(await agents.deleteAgent({ agentId: "scribe" })).toMatchObject({ revision: 3n });
    expect(await refusalOf(agents.getAgent({ key: { case: "agentId", value: "scribe" } }))).toMatchObject({
      code: "NotFound",
      reason: "AGENT_NOT_FOUND",
    });
  });

  it("return each timestamp that applies to the microsecond, and leave others unset", async () => {
    const { agents, backend } = start();
    const exhaustion = { reason: "billing", exhaustedAt: FAKE_NOW, recoveryAt: FAKE_NOW + 1 } as const;
    backend.put("new");
    backend.put("spent", { status: "offline", exhaustion, lastHeartbeat: FAKE_NOW - 1, leaseExpiresAt: null });
    const [fresh, spent] = (await agents.batchGetAgents({ agentIds: ["new", "spent"] })).agents;
    expect(fresh?.leaseExpiresAt).toMatchObject({ seconds: 1_790_000_060n, nanos: 123_457_000 });
    expect(fresh).toMatchObject({ exhaustReason: ExhaustReason.UNSPECIFIED });
    for (const unset of [fresh?.lastHeartbeat, fresh?.exhaustedAt, fresh?.recoveryAt, fresh?.suspectSince]) {
      expect(unset).toBeUndefined();
    }
    expect(spent?.leaseExpiresAt).toBeUndefined();
    expect(spent?.lastHeartbeat?.nanos).toBe(123_456_000);
    expect(spent?.exhaustedAt?.nanos).toBe(123_457_000);
    expect(spent?.recoveryAt?.nanos).toBe(123_458_000);
    expect(spent?.exhaustReason).toBe(ExhaustReason.BILLING);
  });

  it("reject fields that are missing, too long or not text", async () => {
    const { agents } = start();
    const long = "x".repeat(129);
    const refused = async (call: Promise<unknown>): Promise<readonly string[]> => {
      const { reason, fields } = await refusalOf(call);
      expect(reason).toBe("INVALID_FIELD");
      return fields;
    };
    expect(await refused(agents.createAgent({}))).toEqual(["user_id", "agent_id", "claw_identifier"]);
    expect(await refused(agents.createAgent({ userId: -1n, agentId: "a", clawIdentifier: long }))).toEqual([
      "user_id",
      "claw_identifier",
    ]);
    expect(await refused(agents.getAgent({}))).toEqual(["key"]);
    expect(await refused(agents.getAgent({ key: { case: "agentId", value: "" } }))).toEqual(["agent_id"]);
    expect(await refused(agents.getAgent({ key: { case: "userId", value: 0n } }))).toEqual(["user_id"]);
    expect(await refused(agents.moveAgent({ agentId: "a" }))).toEqual(["claw_identifier"]);
    expect(await refused(agents.deleteAgent({ agentId: long, requestId: long }))).toEqual(["agent_id", "request_id"]);
  });
});

describe("BatchGetAgents", () => {
  it("keeps the requested order", async () => {
    const { agents, backend } = start();
    for (const agentId of ["a", "b", "c"]) backend.put(agentId);
    const answer = await agents.batchGetAgents({ agentIds: ["c", "a", "c"] });
    expect(answer.agents.map(({ agentId }) => agentId)).toEqual(["c", "a", "c"]);
  });

  it("returns none for none, and accepts up to 1,000", async () => {
    const { agents, backend } = start();
    backend.put("a");
    expect((await agents.batchGetAgents({})).agents).toEqual([]);
    const many = Array.from({ length: 1_000 }, () => "a");
    expect((await agents.batchGetAgents({ agentIds: many })).agents).toHaveLength(1_000);
    expect((await refusalOf(agents.batchGetAgents({ agentIds: [...many, "a"] }))).fields).toEqual(["agent_ids"]);
    expect((await refusalOf(agents.batchGetAgents({ agentIds: ["a", ""] }))).fields).toEqual(["agent_ids[1]"]);
    expect((await refusalOf(agents.batchGetAgents({ agentIds: ["a", "z"] }))).reason).toBe("AGENT_NOT_FOUND");
  });
});

describe("a filter", () => {
  it.each<{ filter: MessageInitShape<typeof AgentFilterSchema>; found: string[] }>([
    { filter: {}, found: ["a", "b", "c"] },
    { filter: { agentIds: ["a", "c", "z"] }, found: ["a", "c"] },
    { filter: { userIds: [2n] }, found: ["b"] },
    { filter: { clawIdentifiers: ["claw-1"] }, found: ["a", "b"] },
    { filter: { statuses: [AgentStatus.BUSY, AgentStatus.OFFLINE] }, found: ["b", "c"] },
    { filter: { statuses: [AgentStatus.BUSY], clawIdentifiers: ["claw-2"] }, found: [] },
  ])("$filter finds $found", async ({ filter, found }) => {
    const { agents, backend } = start();
    backend.put("a", { userId: 1n });
    backend.put("b", { userId: 2n, status: "busy" });
    backend.put("c", { userId: 3n, status: "offline", clawIdentifier: "claw-2" });
    const answer = await agents.listAgents({ filter });
    expect(answer.agents.map(({ agentId }) => agentId)).toEqual(found);
  });

  it.each<{ filter: MessageInitShape<typeof AgentFilterSchema>; fields: string[] }>([
    { filter: { statuses: [AgentStatus.IDLE, AgentStatus.UNSPECIFIED] }, fields: ["filter.statuses[1]"] },
    { filter: { statuses: [UNKNOWN_STATUS] }, fields: ["filter.statuses[0]"] },
    { filter: { agentIds: ["a", "\u0000"] }, fields: ["filter.agent_ids[1]"] },
    { filter: { clawIdentifiers: [""] }, fields: ["filter.claw_identifiers[0]"] },
    { filter: { userIds: [0n] }, fields: ["filter.user_ids[0]"] },
    { filter: { userIds: Array.from({ length: 1_001 }, () => 1n) }, fields: ["filter.user_ids"] },
  ])("is rejected at $fields, in every request with a filter", async ({ filter, fields }) => {
    const { agents } = start();
    for (const call of [
      agents.listAgents({ filter }),
      agents.getFleet({ filter }),
      agents.watchAgents({ filter })[Symbol.asyncIterator]().next(),
    ]) {
      expect(await refusalOf(call)).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD", fields });
    }
  });
});

describe("GetFleet", () => {
  it("counts by status and by claw, and returns the pace", async () => {
    const { agents, backend } = start();
    backend.put("a", { clawIdentifier: "claw-2" });
    backend.put("b", { status: "busy" });
    backend.put("c");
    const fleet = await agents.getFleet({});
    expect(fleet.statuses).toMatchObject([
      { status: AgentStatus.IDLE, count: 2n },
      { status: AgentStatus.BUSY, count: 1n },
    ]);
    expect(fleet.claws.map(({ clawIdentifier, statuses }) => [clawIdentifier, statuses.length])).toEqual([
      ["claw-1", 2],
      ["claw-2", 1],
    ]);
    expect(fleet).toMatchObject({
      brake: { engaged: false, heldBack: 0n },
      nextHeartbeatIn: { seconds: 9n, nanos: 500_000_000 },
      leaseTtl: { seconds: 30n, nanos: 0 },
      revision: 3n,
    });
    expect(fleet.brake?.engagedAt).toBeUndefined();
    const part = await agents.getFleet({ filter: { statuses: [AgentStatus.BUSY] } });
    expect(part.statuses).toHaveLength(1);
    expect(part.claws).toMatchObject([{ clawIdentifier: "claw-1" }]);
  });
});

describe("UpdateAgentStatus", () => {
  const inDays = (days: number) => ({ seconds: BigInt(Math.floor(Date.now() / 1_000) + days * 86_400) });

  it.each([
    { request: { status: AgentStatus.BUSY }, word: { status: "busy", holdMs: undefined } },
    { request: { status: AgentStatus.OFFLINE }, word: { status: "offline", holdMs: undefined } },
    { request: { status: AgentStatus.OFFLINE, hold: SECONDS(0) }, word: { status: "offline", holdMs: 0 } },
    { request: { status: AgentStatus.ON_CALL, hold: SECONDS(0) }, word: { status: "on_call", holdMs: 0 } },
    { request: { status: AgentStatus.IDLE, hold: SECONDS(3_600) }, word: { status: "idle", holdMs: 3_600_000 } },
    {
      request: { status: AgentStatus.EXHAUSTED, exhaustion: { reason: ExhaustReason.BILLING } },
      word: { status: { exhausted: { reason: "billing" } }, holdMs: undefined },
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: {
          reason: ExhaustReason.RATE_LIMIT,
          recovery: { case: "retryAfter" as const, value: { nanos: 250_000_000 } },
        },
      },
      word: { status: { exhausted: { reason: "rate_limit", retryAfterMs: 250 } }, holdMs: undefined },
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: {
          reason: ExhaustReason.RATE_LIMIT,
          recovery: { case: "recoveryAt" as const, value: { seconds: 1_790_000_000n, nanos: 123_456_000 } },
        },
      },
      word: {
        status: { exhausted: { reason: "rate_limit", recoveryAt: 1_790_000_000_123_456 } },
        holdMs: undefined,
      },
    },
  ])("parses $word", async ({ request, word }) => {
    const { agents, backend } = start();
    backend.put("scribe");
    const answer = await agents.updateAgentStatus({ agentId: "scribe", ...request });
    expect(answer.agent?.status).toBe(request.status);
    expect(backend.calls.statuses).toEqual([{ word, expectedRevision: undefined }]);
  });

  it.each<{ request: MessageInitShape<typeof UpdateAgentStatusRequestSchema>; fields: string[] }>([
    { request: {}, fields: ["status"] },
    { request: { status: UNKNOWN_STATUS }, fields: ["status"] },
    { request: { agentId: "", status: AgentStatus.IDLE }, fields: ["agent_id"] },
    { request: { status: AgentStatus.EXHAUSTED }, fields: ["exhaustion"] },
    { request: { status: AgentStatus.BUSY, exhaustion: { reason: ExhaustReason.BILLING } }, fields: ["exhaustion"] },
    { request: { status: AgentStatus.EXHAUSTED, exhaustion: {} }, fields: ["exhaustion.reason"] },
    {
      request: { status: AgentStatus.EXHAUSTED, exhaustion: { reason: UNKNOWN_REASON } },
      fields: ["exhaustion.reason"],
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: { reason: 1, recovery: { case: "retryAfter", value: SECONDS(-1) } },
      },
      fields: ["exhaustion.retry_after"],
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: { reason: 1, recovery: { case: "retryAfter", value: SECONDS(366 * 86_400 + 1) } },
      },
      fields: ["exhaustion.retry_after"],
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: { reason: 1, recovery: { case: "recoveryAt", value: inDays(367) } },
      },
      fields: ["exhaustion.recovery_at"],
    },
    {
      request: {
        status: AgentStatus.EXHAUSTED,
        exhaustion: { reason: 1, recovery: { case: "recoveryAt", value: { seconds: 1n, nanos: -1 } } },
      },
      fields: ["exhaustion.recovery_at"],
    },
    { request: { status: AgentStatus.IDLE, hold: SECONDS(-1) }, fields: ["hold"] },
    { request: { status: AgentStatus.IDLE, hold: SECONDS(3_601) }, fields: ["hold"] },
    { request: { status: AgentStatus.OFFLINE, hold: SECONDS(1) }, fields: ["hold"] },
    { request: { status: AgentStatus.OFFLINE, hold: { nanos: 1 } }, fields: ["hold"] },
    { request: { status: AgentStatus.IDLE, expectedRevision: -1n }, fields: ["expected_revision"] },
  ])("rejects $fields in $request", async ({ request, fields }) => {
    const { agents, backend } = start();
    backend.put("scribe");
    expect(await refusalOf(agents.updateAgentStatus({ agentId: "scribe", ...request }))).toMatchObject({
      code: "InvalidArgument",
      reason: "INVALID_FIELD",
      fields,
    });
    expect(backend.calls.statuses).toEqual([]);
  });

  it("passes expected_revision on, also 0", async () => {
    const { agents, backend } = start();
    backend.put("scribe");
    const at = (expectedRevision: bigint) =>
      agents.updateAgentStatus({ agentId: "scribe", status: AgentStatus.BUSY, expectedRevision });
    expect(await refusalOf(at(0n))).toMatchObject({
      code: "Aborted",
      reason: "REVISION_MISMATCH",
      metadata: { revision: "1" },
    });
    expect((await at(1n)).agent?.revision).toBe(2n);
  });
});

describe("ListAgentTransitions", () => {
  it("returns the changes, their actors and their request_ids", async () => {
    const { agents } = start();
    await agents.createAgent({ userId: 1n, agentId: "scribe", clawIdentifier: "claw-1", requestId: "r1" });
    const recoveryAt = { seconds: 1_790_000_100n, nanos: 1_000 };
    await agents.updateAgentStatus({
      agentId: "scribe",
      status: AgentStatus.EXHAUSTED,
      exhaustion: { reason: ExhaustReason.BILLING, recovery: { case: "recoveryAt", value: recoveryAt } },
    });
    await agents.deleteAgent({ agentId: "scribe" });
    const { transitions } = await agents.listAgentTransitions({});
    expect(transitions).toMatchObject([
      {
        revision: 1n,
        agentId: "scribe",
        fromStatus: AgentStatus.UNSPECIFIED,
        toStatus: AgentStatus.IDLE,
        cause: TransitionCause.CREATED,
        actor: "service:anonymous",
        fromClawIdentifier: "",
        toClawIdentifier: "claw-1",
        requestId: "r1",
        incidentId: "",
      },
      {
        revision: 2n,
        cause: TransitionCause.SERVICE,
        exhaustion: { reason: ExhaustReason.BILLING, recovery: { case: "recoveryAt", value: recoveryAt } },
      },
      { revision: 3n, cause: TransitionCause.DELETED, toStatus: AgentStatus.UNSPECIFIED, toClawIdentifier: "" },
    ]);
    expect(transitions[2]?.exhaustion).toBeUndefined();
  });

  it("passes its filters on, and rejects invalid ones", async () => {
    const { agents, backend } = start();
    await agents.listAgentTransitions({});
    await agents.listAgentTransitions({
      causes: [TransitionCause.LEASE_EXPIRED, TransitionCause.MOVED],
      clawIdentifier: "claw-1",
      since: { seconds: 1_790_000_000n, nanos: 123_457_000 },
      incidentId: "an incident",
    });
    expect(backend.calls.transitions).toMatchObject([
      { causes: [], clawIdentifier: undefined, since: undefined, incidentId: undefined },
      {
        causes: ["lease_expired", "moved"],
        clawIdentifier: "claw-1",
        since: 1_790_000_000_123_457,
        incidentId: "an incident",
      },
    ]);
    const invalid = {
      causes: [TransitionCause.UNSPECIFIED],
      clawIdentifier: "",
      since: { seconds: -1n },
      incidentId: "x".repeat(65),
    };
    expect((await refusalOf(agents.listAgentTransitions(invalid))).fields).toEqual([
      "causes[0]",
      "claw_identifier",
      "since",
      "incident_id",
    ]);
  });

  it("selects by agent and revision", async () => {
    const { agents, backend } = start();
    for (const agentId of ["a", "b", "a", "b"]) backend.put(agentId);
    const revisions = async (request: Parameters<typeof agents.listAgentTransitions>[0]) =>
      (await agents.listAgentTransitions(request)).transitions.map(({ revision }) => revision);
    expect(await revisions({ agentId: "a" })).toEqual([1n, 3n]);
    expect(await revisions({ afterRevision: 2n })).toEqual([3n, 4n]);
    expect(await revisions({ newestFirst: true })).toEqual([4n, 3n, 2n, 1n]);
    expect((await refusalOf(agents.listAgentTransitions({ agentId: "" }))).fields).toEqual(["agent_id"]);
    expect((await refusalOf(agents.listAgentTransitions({ afterRevision: -1n, pageSize: -1 }))).fields).toEqual([
      "after_revision",
      "page_size",
    ]);
  });
});

describe("ListIncidents", () => {
  const incident = (number: number): Incident => ({
    incidentId: `incident ${number}`,
    clawIdentifier: `claw-${number}`,
    since: FAKE_NOW,
    endedAt: number === 1 ? FAKE_NOW + 1 : null,
    agents: 50n,
    agentsBack: BigInt(number),
    lastHeartbeat: number === 1 ? FAKE_NOW - 1 : null,
  });

  it("returns incidents, the newest first, in pages", async () => {
    const { agents, backend } = start();
    backend.incidents.push(incident(1), incident(2));
    const first = await agents.listIncidents({ pageSize: 1 });
    expect(first.incidents).toMatchObject([
      { incidentId: "incident 2", clawIdentifiers: ["claw-2"], agents: 50n, agentsBack: 2n },
    ]);
    expect([first.incidents[0]?.endedAt, first.incidents[0]?.lastHeartbeat]).toEqual([undefined, undefined]);
    const second = await agents.listIncidents({ pageSize: 1, pageToken: first.nextPageToken });
    expect(second.nextPageToken).toBe("");
    expect(second.incidents).toMatchObject([
      {
        incidentId: "incident 1",
        since: { seconds: 1_790_000_000n, nanos: 123_457_000 },
        endedAt: { nanos: 123_458_000 },
        lastHeartbeat: { nanos: 123_456_000 },
      },
    ]);
    const other = { clawIdentifier: "claw-1", pageToken: first.nextPageToken };
    expect((await refusalOf(agents.listIncidents(other))).reason).toBe("INVALID_PAGE_TOKEN");
  });

  it("selects by claw, and rejects invalid fields", async () => {
    const { agents, backend } = start();
    await agents.listIncidents({ clawIdentifier: "claw-1" });
    expect(backend.calls.incidents).toMatchObject([{ clawIdentifier: "claw-1", after: undefined, limit: 50 }]);
    const invalid = { clawIdentifier: "", pageSize: -1 };
    expect((await refusalOf(agents.listIncidents(invalid))).fields).toEqual(["claw_identifier", "page_size"]);
  });
});
