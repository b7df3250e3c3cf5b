import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus, ExhaustReason, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { SessionStart } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import {
  aheadMs,
  expectAhead,
  expectInvalid,
  expectRefusal,
  getAgent,
  newAgent,
  present,
  rateLimit,
  setStatus,
} from "../support/contract-steps.ts";
import { HeartbeatStream } from "../support/contract-streams.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { envelope, errorIn, http1 } from "../support/rpc-raw.ts";
import { INTERVAL_MS, unique, useService } from "../support/service.ts";

const service = useService();
const { IDLE, ON_CALL, BUSY, EXHAUSTED, OFFLINE, UNSPECIFIED } = AgentStatus;

describe.concurrent.each(TESTED_PROTOCOLS.filter(({ bidi }) => bidi))("Heartbeat: $name", (protocol) => {
  const clients = useClients(protocol, service);
  const { agents } = clients;

  test("sends a first response before any request, with pace, lease and limits", async () => {
    await using stream = new HeartbeatStream(clients);
    await stream.until("hello", () => stream.messages.length > 0);
    const [hello] = stream.messages;
    expect(hello).toMatchObject({
      acknowledgedSequence: 0n,
      results: [],
      limits: { maxBeats: 1_000, maxMessageBytes: 1_048_576, maxAgents: 10_000 },
    });
    expect(hello?.draining).toBeUndefined();
    expect(durationMs(present(hello?.nextHeartbeatIn))).toBeLessThanOrEqual(INTERVAL_MS);
    expect(durationMs(present(hello?.leaseTtl))).toBe(3 * INTERVAL_MS);
  });

  test("acknowledges applied messages, with the agent's first state, and the pace in every response", async () => {
    const since = Date.now();
    const { agent, agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    const introduced = await stream.beat({ beats: [{ agentId }] });
    expect(introduced).toMatchObject([{ agentId, status: IDLE, revision: agent.revision, sequence: 1n, beatIndex: 0 }]);
    const [busy] = await stream.beat({ beats: [{ agentId, status: BUSY }] });
    expect(busy).toMatchObject({ agentId, status: BUSY, sequence: 2n });
    // Committed when it is acknowledged.
    const committed = await getAgent(clients, agentId);
    expect(committed).toMatchObject({ status: BUSY, revision: busy?.revision });
    expectAhead(committed.leaseExpiresAt, 3 * INTERVAL_MS, since);
    // No result for a beat that was applied as sent.
    expect(await stream.beat({ beats: [{ agentId, status: BUSY }] })).toEqual([]);
    for (const { nextHeartbeatIn, leaseTtl, limits } of stream.messages.slice(1)) {
      expect(nextHeartbeatIn).toBeDefined();
      expect(leaseTtl).toBeDefined();
      expect(limits).toBeUndefined();
    }
  });

  test("acknowledges messages without beats, and accepts gaps between their numbers", async () => {
    const { agentId, agent } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    stream.send({ sequence: 5n });
    stream.send({ sequence: 18_446_744_073_709_551_000n, beats: [{ agentId }] });
    await stream.until("all is acknowledged", () => stream.acknowledged === 18_446_744_073_709_551_000n);
    expect(stream.results).toMatchObject([{ sequence: 18_446_744_073_709_551_000n, revision: agent.revision }]);
  });

  test("acknowledges cumulatively, in order", async () => {
    const [one, two] = [await newAgent(clients), await newAgent(clients)];
    await using stream = new HeartbeatStream(clients);
    for (const status of [BUSY, IDLE, ON_CALL, BUSY]) {
      stream.send({ beats: [{ agentId: one.agentId, status }, { agentId: two.agentId }] });
    }
    await stream.until("all is acknowledged", () => stream.acknowledged === 4n);
    const acknowledged = stream.messages.map(({ acknowledgedSequence }) => acknowledgedSequence);
    expect(acknowledged).toEqual(acknowledged.toSorted((a, b) => Number(a - b)));
    const { transitions } = await agents.listAgentTransitions({ agentId: one.agentId });
    expect(transitions.map(({ toStatus }) => toStatus)).toEqual([IDLE, BUSY, IDLE, ON_CALL, BUSY]);
  });

  test.each([
    ["0", [0n]],
    ["repeated", [1n, 1n]],
    ["falling", [7n, 6n]],
  ])("ends a stream whose sequence is %s, and earlier messages stay applied", async (_, sequences) => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    const [first = 0n, second] = sequences;
    stream.send({ sequence: first, beats: [{ agentId, status: BUSY }] });
    if (second !== undefined) {
      await stream.until("the first is acknowledged", () => stream.acknowledged === first);
      stream.send({ sequence: second, beats: [{ agentId, status: ON_CALL }] });
    }
    await expectInvalid(stream.end(), "sequence");
    expect((await getAgent(clients, agentId)).status).toBe(second === undefined ? IDLE : BUSY);
  });

  test("ends a stream for more than 1,000 beats in a message, and for an invalid claw", async () => {
    await using crowded = new HeartbeatStream(clients);
    crowded.send({ beats: Array.from({ length: 1_001 }, () => ({ agentId: "a" })) });
    await expectInvalid(crowded.end(), "beats");
    await using nameless = new HeartbeatStream(clients);
    nameless.send({ clawIdentifier: "\n", instanceId: "x".repeat(129) });
    await expectInvalid(nameless.end(), "claw_identifier", "instance_id");
  });

  test("ends a stream for a message above 1 MiB", async () => {
    await using stream = new HeartbeatStream(clients);
    stream.send({ beats: Array.from({ length: 1_000 }, () => ({ agentId: "x".repeat(1_100) })) });
    await expectRefusal(stream.end(), Code.ResourceExhausted, "LIMIT_EXCEEDED", {
      metadata: { limit: "maxMessageBytes", maxMessageBytes: "1048576" },
    });
  });

  test("judges beats individually: an invalid one ends no stream and affects no other beat", async () => {
    const claw = unique("claw");
    const [one, two] = [await newAgent(clients, claw), await newAgent(clients, claw)];
    const elsewhere = await newAgent(clients);
    const missing = unique("agent");
    await using stream = new HeartbeatStream(clients);
    const results = await stream.beat({
      clawIdentifier: claw,
      beats: [
        { agentId: "" },
        { agentId: missing },
        { agentId: elsewhere.agentId, status: BUSY },
        { agentId: one.agentId, status: OFFLINE },
        { agentId: one.agentId, status: EXHAUSTED },
        { agentId: one.agentId, status: BUSY },
        { agentId: one.agentId, status: 99 as AgentStatus },
        { agentId: one.agentId, leaving: true, exhaustion: rateLimit(1n) },
        { agentId: two.agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) },
      ],
    });
    const byIndex = results.toSorted((a, b) => a.beatIndex - b.beatIndex);
    const refused = (beatIndex: number, agentId: string, code: Code, reason: ErrorReason) => ({
      beatIndex,
      agentId,
      status: UNSPECIFIED,
      revision: 0n,
      sequence: 1n,
      error: { code, reason, message: expect.stringMatching(/\S/) },
    });
    expect(byIndex).toMatchObject([
      refused(0, "", Code.InvalidArgument, ErrorReason.INVALID_FIELD),
      refused(1, missing, Code.NotFound, ErrorReason.AGENT_NOT_FOUND),
      refused(2, elsewhere.agentId, Code.FailedPrecondition, ErrorReason.WRONG_CLAW),
      refused(3, one.agentId, Code.InvalidArgument, ErrorReason.INVALID_FIELD),
      refused(4, one.agentId, Code.InvalidArgument, ErrorReason.INVALID_FIELD),
      { beatIndex: 5, agentId: one.agentId, status: BUSY },
      refused(6, one.agentId, Code.InvalidArgument, ErrorReason.INVALID_FIELD),
      refused(7, one.agentId, Code.InvalidArgument, ErrorReason.INVALID_FIELD),
      { beatIndex: 8, agentId: two.agentId, status: EXHAUSTED, exhaustion: { reason: ExhaustReason.RATE_LIMIT } },
    ]);
    expect((await getAgent(clients, elsewhere.agentId)).status).toBe(IDLE);
  });

  test("reads claw, instance and generation in the first message only", async () => {
    const { agentId, claw } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ clawIdentifier: claw });
    const [result] = await stream.beat({
      clawIdentifier: "another",
      instanceId: "x".repeat(999),
      beats: [{ agentId }],
    });
    expect(result).toMatchObject({ agentId, status: IDLE });
    expect(result?.error).toBeUndefined();
  });

  test("pushes a service's change of an agent of the stream", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId }] });
    const { revision } = await setStatus(clients, agentId, BUSY);
    const news = await stream.newsOf(agentId);
    expect(news).toMatchObject({ agentId, status: BUSY, sequence: 0n, revision });
    expect(news.error).toBeUndefined();
    // It acknowledges nothing.
    expect(stream.acknowledged).toBe(1n);
    const { agent } = await agents.updateAgentStatus({ agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
    const exhausted = await stream.newsOf(agentId, 1);
    expect(exhausted).toMatchObject({ status: EXHAUSTED, exhaustion: { reason: ExhaustReason.RATE_LIMIT } });
    expect(exhausted.exhaustion?.recovery).toEqual({ case: "recoveryAt", value: agent?.recoveryAt });
  });

  test("holds off a report that is older than a service's change, until the stream knows of it", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId, status: IDLE }] });
    const { revision } = await setStatus(clients, agentId, BUSY);
    const [held] = await stream.beat({ beats: [{ agentId, status: IDLE }] });
    expect(held).toMatchObject({
      status: BUSY,
      revision,
      error: { code: Code.Aborted, reason: ErrorReason.REPORT_OUTDATED },
    });
    expect((await getAgent(clients, agentId)).status).toBe(BUSY);
    const [applied] = await stream.beat({ beats: [{ agentId, status: ON_CALL, knownRevision: revision }] });
    expect(applied).toMatchObject({ status: ON_CALL });
    expect(applied?.error).toBeUndefined();
  });

  test("ends a hold by the same report", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId }] });
    const { revision } = await setStatus(clients, agentId, BUSY);
    await stream.beat({ beats: [{ agentId, status: BUSY }] });
    expect((await getAgent(clients, agentId)).revision).toBe(revision);
    await stream.beat({ beats: [{ agentId, status: IDLE }] });
    expect((await getAgent(clients, agentId)).status).toBe(IDLE);
  });

  test("applies a goodbye for one agent and continues with the others", async () => {
    const claw = unique("claw");
    const [one, two] = [await newAgent(clients, claw), await newAgent(clients, claw)];
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId: one.agentId }, { agentId: two.agentId }] });
    await setStatus(clients, one.agentId, BUSY);
    await stream.beat({
      beats: [
        { agentId: one.agentId, leaving: true },
        { agentId: two.agentId, status: BUSY },
      ],
    });
    const gone = await getAgent(clients, one.agentId);
    expect([gone.status, gone.leaseExpiresAt]).toEqual([OFFLINE, undefined]);
    expect((await getAgent(clients, two.agentId)).status).toBe(BUSY);
    const { transitions } = await agents.listAgentTransitions({ agentId: one.agentId, newestFirst: true, pageSize: 1 });
    expect(transitions).toMatchObject([{ cause: TransitionCause.GOODBYE, actor: `agent:${one.agentId}` }]);
    const [back] = await stream.beat({ beats: [{ agentId: one.agentId }] });
    expect(back).toMatchObject({ agentId: one.agentId, status: IDLE });
  });

  test("ends by its client without a goodbye", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    stream.send({ beats: [{ agentId, status: BUSY }] });
    stream.input.end();
    await stream.end();
    // Earlier messages are applied and acknowledged.
    expect(stream.acknowledged).toBe(1n);
    const agent = await getAgent(clients, agentId);
    expect(agent.status).toBe(BUSY);
    expect(aheadMs(agent.leaseExpiresAt)).toBeGreaterThan(0);
  });

  test("loses an agent to a later stream, and is notified", async () => {
    const { agentId } = await newAgent(clients);
    await using former = new HeartbeatStream(clients);
    await former.beat({ beats: [{ agentId }] });
    await using later = new HeartbeatStream(clients);
    await later.beat({ beats: [{ agentId, status: BUSY }] });
    const superseded = { code: Code.Aborted, reason: ErrorReason.SESSION_SUPERSEDED };
    expect(await former.newsOf(agentId)).toMatchObject({ status: UNSPECIFIED, revision: 0n, error: superseded });
    const [refused] = await former.beat({ beats: [{ agentId, status: IDLE }] });
    expect(refused).toMatchObject({ error: superseded, sequence: 2n });
    expect((await getAgent(clients, agentId)).status).toBe(BUSY);
  });

  test("keeps an agent against an older stream of the same process", async () => {
    const { agentId } = await newAgent(clients);
    const instanceId = unique("process");
    await using newer = new HeartbeatStream(clients);
    await newer.beat({ instanceId, generation: 2n, beats: [{ agentId }] });
    await using older = new HeartbeatStream(clients);
    const [refused] = await older.beat({ instanceId, generation: 1n, beats: [{ agentId, status: BUSY }] });
    expect(refused?.error?.reason).toBe(ErrorReason.SESSION_SUPERSEDED);
    expect(newer.news).toEqual([]);
    await newer.beat({ beats: [{ agentId, status: ON_CALL }] });
    expect((await getAgent(clients, agentId)).status).toBe(ON_CALL);
  });

  test("does not resume an agent that another process has held since, and gets it by a new claim", async () => {
    const { agentId } = await newAgent(clients);
    const instanceId = unique("process");
    const { FIRST, ANEW, RESUME } = SessionStart;
    await using former = new HeartbeatStream(clients);
    await former.beat({ instanceId, generation: 1n, beats: [{ agentId, status: BUSY, sessionStart: FIRST }] });
    await using again = new HeartbeatStream(clients);
    const resumed = await again.beat({ instanceId, generation: 2n, beats: [{ agentId, sessionStart: RESUME }] });
    expect(resumed).toMatchObject([{ agentId, status: BUSY }]);
    await using taker = new HeartbeatStream(clients);
    await taker.beat({ instanceId: unique("process"), beats: [{ agentId, status: ON_CALL, sessionStart: FIRST }] });

    await using returning = new HeartbeatStream(clients);
    const back = { agentId, status: BUSY, sessionStart: RESUME };
    const superseded = { code: Code.Aborted, reason: ErrorReason.SESSION_SUPERSEDED };
    const refused = await returning.beat({ instanceId, generation: 3n, beats: [back, { agentId, leaving: true }] });
    expect(refused.map(({ error }) => error)).toMatchObject([superseded, superseded]);
    expect(taker.news).toEqual([]);
    expect((await getAgent(clients, agentId)).status).toBe(ON_CALL);
    const [claimed] = await returning.beat({ beats: [{ ...back, sessionStart: ANEW }] });
    expect(claimed).toMatchObject({ status: BUSY, sequence: 2n });
    expect((await taker.newsOf(agentId)).error).toMatchObject(superseded);
  });

  test("requires an instance_id to resume, and a session start of the contract", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    const starts = [SessionStart.RESUME, 99 as SessionStart];
    const field = protocol.name.includes("JSON") ? "sessionStart" : "session_start";
    const results = await stream.beat({ beats: starts.map((sessionStart) => ({ agentId, sessionStart })) });
    expect(results.map(({ error }) => error)).toMatchObject([
      { code: Code.InvalidArgument, message: expect.stringContaining(`beats[0].${field}: must not be RESUME`) },
      { code: Code.InvalidArgument, message: expect.stringContaining(`beats[1].${field}: must be`) },
    ]);
    expect((await getAgent(clients, agentId)).lastHeartbeat).toBeUndefined();
  });

  test("is notified when an agent moves away or is deleted", async () => {
    const claw = unique("claw");
    const [moved, deleted] = [await newAgent(clients, claw), await newAgent(clients, claw)];
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ clawIdentifier: claw, beats: [{ agentId: moved.agentId }, { agentId: deleted.agentId }] });
    await agents.moveAgent({ agentId: moved.agentId, clawIdentifier: `${claw}-2` });
    expect((await stream.newsOf(moved.agentId)).error?.reason).toBe(ErrorReason.WRONG_CLAW);
    await agents.deleteAgent({ agentId: deleted.agentId });
    expect((await stream.newsOf(deleted.agentId)).error?.reason).toBe(ErrorReason.AGENT_NOT_FOUND);
    const results = await stream.beat({ beats: [{ agentId: moved.agentId }, { agentId: deleted.agentId }] });
    expect(new Map(results.map(({ agentId, error }) => [agentId, error?.reason]))).toEqual(
      new Map([
        [moved.agentId, ErrorReason.WRONG_CLAW],
        [deleted.agentId, ErrorReason.AGENT_NOT_FOUND],
      ]),
    );
  });

  test("carries changes by a unary heartbeat of its agent, too", async () => {
    const { agentId } = await newAgent(clients);
    await using stream = new HeartbeatStream(clients);
    await stream.beat({ beats: [{ agentId }] });
    const { results } = await agents.sendHeartbeat({ beats: [{ agentId, status: BUSY }] });
    expect(results).toMatchObject([{ status: BUSY }]);
    expect(results[0]?.error).toBeUndefined();
    // It superseded no stream.
    await stream.beat({ beats: [{ agentId, status: ON_CALL }] });
    expect((await getAgent(clients, agentId)).status).toBe(ON_CALL);
  });
});

describe("Heartbeat over HTTP/1.1", () => {
  test.each([
    ["Connect JSON", "application/connect+json", "{}"],
    ["Connect binary", "application/connect+proto", ""],
    ["gRPC-Web", "application/grpc-web+proto", ""],
    ["gRPC", "application/grpc", ""],
  ])("is rejected: %s", async (_, contentType, message) => {
    const response = await http1(service().addresses.http, "/harborforge.agents.v1.AgentService/Heartbeat", {
      headers: { "content-type": contentType },
      body: envelope(message),
    });
    await expectRefusal(Promise.reject(errorIn(response)), Code.Unimplemented, "HTTP2_REQUIRED");
  });
});
